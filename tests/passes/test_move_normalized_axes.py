"""move_normalized_axes: batch normalization over an axis that is not the last one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests.layers.cases import Case, randomize
from tests.layers.contract import Prepared, assert_equals_litert


def model_of(axis, shape=(5, 6, 4)):
    x = keras.Input(shape)
    model = keras.Model(x, layers.BatchNormalization(axis=axis, name="norm")(x))
    randomize(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize("axis", [1, 2, -2, -3])
def test_move_normalized_axes_keeps_function_weights_and_exactness(axis):
    model = model_of(axis)
    x = np.random.default_rng(1).normal(size=(4, 5, 6, 4)).astype("float32")
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(clone.trainable_weights) == 2
    assert_equals_litert(Prepared(Case("other_axis", (), lambda: model_of(axis))))


def test_move_normalized_axes_trains_the_same_statistics():
    model = model_of(1)
    clone = keras_qat.clone_model(model)
    x = np.random.default_rng(1).normal(size=(4, 5, 6, 4)).astype("float32")
    np.testing.assert_allclose(clone(x, training=True), model(x, training=True), atol=1e-4)

    def statistics(weights):
        return {w.name: w.numpy() for w in weights if w.name.startswith("moving")}

    ours, exact = statistics(clone.weights), statistics(model.weights)
    assert set(ours) == set(exact) == {"moving_mean", "moving_variance"}
    for name, value in exact.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6)


def test_move_normalized_axes_leaves_the_last_axis():
    assert len(keras_qat.clone_model(model_of(3)).layers) == 2
