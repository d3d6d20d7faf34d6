"""A rewritten model with another function than the source model is an error."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import RewriteError
from keras_qat.graph import read_model
from keras_qat.layers.core import registry
from keras_qat.proof import check_ends
from tests.models import randomized, small_network


class Halved(layers.Layer):
    """A custom layer."""

    def call(self, x):
        return 0.5 * x


@pytest.fixture
def wrong(monkeypatch):
    """Registers a function for a layer that computes different values."""
    monkeypatch.setitem(registry._CALLS, Halved, lambda layer, x: 0.25 * ops.sin(x))


def with_halved():
    x = image = keras.Input((6, 6, 2), name="image")
    for i in range(2):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"norm{i}")(x))
    y = Halved(name="halved")(layers.Activation("tanh", name="tanh")(x))
    y = layers.Dense(3, name="head")(layers.Flatten(name="flat")(y))
    return randomized(keras.Model(image, [y, layers.GlobalMaxPooling2D(name="max")(x)]))


@pytest.mark.parametrize("data", [None, np.ones((4, 6, 6, 2), "float32")])
def test_quantize_model_names_the_first_layer_that_differs(wrong, data):
    with pytest.raises(RewriteError, match="computes other values") as caught:
        keras_qat.quantize_model(with_halved(), calibration_data=data)
    assert (caught.value.layer or "").startswith("halved")


def test_quantize_model_names_a_wrong_registered_function(wrong):
    with pytest.raises(RewriteError, match="registered for Halved.*halved.*first argument"):
        keras_qat.quantize_model(with_halved())


def test_clone_model_names_the_first_layer_that_differs(wrong):
    with pytest.raises(RewriteError) as caught:
        keras_qat.clone_model(with_halved())
    assert (caught.value.layer or "").startswith("halved")


def test_clone_model_does_not_compare_with_options_that_change_the_function(wrong):
    assert keras_qat.clone_model(with_halved(), skip_layers=["halved"]) is not None
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, activation="softplus")(x))
    assert keras_qat.clone_model(model, activations="substitute") is not None


def test_check_ends_refuses_another_shape_and_dtype():
    x = keras.Input((4,), name="x")
    source = read_model(keras.Model(x, layers.Dense(2, name="head")(x)))
    for y in (layers.Dense(3)(x), ops.cast(layers.Dense(2)(x), "int32")):
        with pytest.raises(RewriteError, match="other outputs") as caught:
            check_ends(source, keras.Model(x, y))
        assert caught.value.expected == "float32 of shape (None, 2)"


def test_quantize_model_takes_a_network_that_amplifies_rounding():
    x = image = keras.Input((5,))
    y = layers.Rescaling(1 / 3, 0.1)(x)
    y = layers.Activation("sigmoid")(layers.Dense(6)(y))
    for _ in range(4):  # each step multiplies a difference by up to 1000
        y = layers.Lambda(lambda z: ops.sin(1000.0 * z))(y)
    assert keras_qat.clone_model(keras.Model(image, y)) is not None


def test_quantize_model_takes_random_operations_at_inference():
    x = keras.Input((8,))
    y = layers.Dropout(0.5, seed=1, name="drop")(layers.Dense(8)(x), training=True)
    assert keras_qat.quantize_model(keras.Model(x, layers.Dense(2)(y))) is not None


def test_quantize_model_takes_ids_dicts_and_values_that_are_not_finite():
    ids, real = keras.Input((3,), dtype="int32", name="ids"), keras.Input((2,), name="real")
    y = layers.Concatenate()([layers.Flatten()(layers.Embedding(2, 2)(ids)), ops.log(real)])
    model = keras.Model({"real": real, "ids": ids}, {"out": y, "sum": layers.Dense(2)(y)})
    assert set(keras_qat.clone_model(model).output) == {"out", "sum"}
    half = keras.Sequential([keras.Input((4,)), layers.Dense(8, dtype="mixed_float16")])
    assert keras_qat.clone_model(half).outputs[0].dtype == "float32"


def test_quantize_model_leaves_the_source_model_unchanged():
    model = small_network()
    model.compile(loss="mse")
    before = [np.array(v) for v in model.variables]
    keras_qat.quantize_model(model)
    assert model.predict_function is None and model.train_function is None and not model.losses
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
