"""Arithmetic with constants becomes a factor and an offset for each channel."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from tests.passes.test_open_layers import Scaled

layers = keras.layers

EXPRESSIONS = [
    lambda x: x * 0.5,
    lambda x: 2 - x,
    lambda x: x - 2,
    lambda x: -x,
    lambda x: x / 4 + 1,
    lambda x: ops.multiply(np.array([1, -2, 3], "float32"), x),
    lambda x: ops.add(x, np.array([[[1, 2, 3]]], "float32")),
    Scaled(name="scaled"),
]


def rows(shape=(6, 3), count=16):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind dense"])
def test_function_is_kept_and_quantized_exactly(expression, behind, tmp_path):
    x = keras.Input((6, 3))
    y = layers.Dense(3)(x) if behind else x
    model = keras.Model(x, expression(y))
    data = rows()
    np.testing.assert_allclose(keras_qat.clone_model(model)(data), model(data), atol=1e-5)
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    assert len(quantized.trainable_weights) == len(model.trainable_weights)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0)
    assert report.exact, str(report)


def test_folds_into_the_layer_before():
    x = keras.Input((6, 3))
    clone = keras_qat.clone_model(keras.Model(x, ops.relu(layers.Dense(3, name="d")(x) * 0.5)))
    assert [layer.name for layer in clone.layers[1:]] == ["d"]
    assert len(clone.trainable_weights) == 2
