"""Batch normalization in training. The oracle is Keras's layer."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_qat.layers.kernels.batch_statistics import normalized

SHAPES = {"images": (8, 5, 4, 3), "sequences": (8, 7, 3), "vectors": (32, 3), "one": (1, 1, 1, 3)}
OPTIONS = {
    "usual": {},
    "no_factors": {"scale": False},
    "no_offsets": {"center": False, "momentum": 0.5, "epsilon": 1e-5},
    "frozen": {"trainable": False},
}


def made(shape, **options):
    rng = np.random.default_rng(1)
    norm = keras.layers.BatchNormalization(**options)
    norm.build((None, *shape[1:]))
    for variable in norm.variables:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    return norm


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_moving_averages_equal_those_of_keras(shape, options):
    x = np.random.default_rng(0).normal(3.0, 2.0, SHAPES[shape]).astype("float32")
    ours, theirs = (made(SHAPES[shape], **OPTIONS[options]) for _ in range(2))
    np.testing.assert_allclose(normalized(ours, x, True), theirs(x, training=True), 1e-5, 1e-5)
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(a, b, 1e-6, 1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="GradientTape is TensorFlow's")
@pytest.mark.parametrize("shape", ["images", "sequences"])
def test_gradients_equal_those_of_keras(shape):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, weights = (tf.constant(rng.normal(1.0, 2.0, SHAPES[shape]), "float32") for _ in range(2))

    def gradients(call) -> Any:
        norm = made(SHAPES[shape])
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ops.sum(weights * ops.square(call(norm)))
        return tape.gradient(loss, [x, norm.gamma.value, norm.beta.value])

    ours = gradients(lambda norm: normalized(norm, x, True))
    theirs = gradients(lambda norm: norm(x, training=True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5 * np.abs(b).max())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has a kernel")
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_are_normalized_by_one_kernel(shape):
    import tensorflow as tf

    norm = made(SHAPES[shape])
    traced = tf.function(lambda x: normalized(norm, x, True)).get_concrete_function(
        tf.TensorSpec(SHAPES[shape])
    )
    kinds = [operation.type for operation in traced.graph.get_operations()]
    assert kinds.count("FusedBatchNormV3") == 1 and "Mean" not in kinds
