"""write_affines: arithmetic with constants becomes a factor and an offset per channel."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.layers import QBatchNormalization
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


@pytest.mark.one_in(2)
@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "after dense"])
def test_write_affines_keeps_the_function_and_exactness(expression, behind, tmp_path):
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


def test_write_affines_lets_an_affine_be_folded():
    x = keras.Input((6, 3))
    clone = keras_qat.clone_model(keras.Model(x, ops.relu(layers.Dense(3, name="d")(x) * 0.5)))
    assert [layer.name for layer in clone.layers[1:]] == ["d"]
    assert len(clone.trainable_weights) == 2


def affines_of(model):
    return [
        type(layer).__name__
        for layer in keras_qat.clone_model(model).layers
        if isinstance(layer, QBatchNormalization)
    ]


def test_write_affines_joins_several_in_sequence():
    x = keras.Input((6, 3))
    y = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.25])(
        layers.Rescaling(1 / 255, -1.0)(x)
    )
    model = keras.Model(x, (2 - y) * 3)
    assert affines_of(model) == ["QBatchNormalization"]
    np.testing.assert_allclose(keras_qat.clone_model(model)(rows()), model(rows()), atol=1e-4)


def test_write_affines_removes_affines_without_effect():
    x = keras.Input((6, 3))
    y = layers.Normalization(mean=0.0, variance=1.0)(x) * 2 / 2
    assert affines_of(keras.Model(x, layers.ReLU()(y + 0))) == []


def test_write_affines_keeps_variables_that_would_train_differently():
    x = keras.Input((6, 3))
    model = keras.Model(x, Scaled()(Scaled()(x)))
    clone = keras_qat.clone_model(model)
    assert affines_of(model) == ["QBatchNormalization"] * 2
    assert len(clone.trainable_weights) == 4


def test_write_affines_keeps_a_layer_shared():
    scaled, first, second = Scaled(), keras.Input((6, 3)), keras.Input((6, 3))
    model = keras.Model([first, second], [scaled(first), scaled(second)])
    clone = keras_qat.clone_model(model)
    assert len(clone.trainable_weights) == 2
    data = [rows(), 1 + rows()]
    for ours, exact in zip(clone(data), model(data), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-5)


def test_write_affines_keeps_a_layer_of_two_shapes_shared():
    scaled = Scaled(name="scaled")
    first, second = keras.Input((6, 3)), keras.Input((2, 3))
    model = keras.Model([first, second], [scaled(first), scaled(second)])
    clone = keras_qat.clone_model(model)
    assert len(clone.trainable_weights) == 2
    data = [rows(), 1 + rows()[:, :2]]
    for ours, exact in zip(clone(data), model(data), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-5)


class Offset(keras.layers.Layer):
    """Adds a bias."""

    def build(self, input_shape):
        self.b = self.add_weight(shape=(4,), name="b", initializer="random_normal")

    def call(self, inputs):
        return inputs + self.b


def test_write_affines_keeps_one_weight_of_a_layer_that_is_called_after_different_factors():
    x = keras.Input((3, 4))
    offset = Offset()
    model = keras.Model(x, [keras.layers.ReLU()(offset(2 * x)), keras.layers.ReLU()(offset(x))])
    data = np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")
    clone = keras_qat.clone_model(model)
    assert len(clone.trainable_weights) == 1
    for got, expected in zip(clone(data), model(data), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
