"""Custom layers, and the check of a clone and an exported file of a model that has them."""

import keras
import numpy as np
from keras import ops

import keras_qat

layers = keras.layers


class MyDense(layers.Layer):
    """A dense layer written out."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), name="b", initializer="random_normal")
        super().build(input_shape)

    def call(self, inputs):
        return ops.matmul(inputs, self.w) + self.b


class MyConv(layers.Conv2D):
    """A convolution that adds its bias twice."""

    def call(self, inputs):
        y = ops.conv(inputs, self.kernel, strides=list(self.strides), padding=self.padding)
        return ops.relu(y + 2 * self.bias)


class Upsampled(layers.Conv2DTranspose):
    """A custom transposed convolution."""

    def call(self, inputs):
        strides = list(self.strides)
        return ops.conv_transpose(inputs, self.kernel, strides=strides, padding="same") + self.bias


class Gated(layers.Layer):
    """A gated unit: two products, one of which gates the other."""

    def build(self, input_shape):
        shape = (input_shape[-1], 4)
        self.value = self.add_weight(shape=shape, name="value")
        self.gate = self.add_weight(shape=shape, name="gate")
        self.shift = self.add_weight(shape=(4,), name="shift")
        super().build(input_shape)

    def call(self, inputs):
        gate = ops.sigmoid(ops.einsum("...i,io->...o", inputs, self.gate) + self.shift)
        return (inputs @ self.value) * gate


def normal(shape, count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def around(layer, shape):
    x = keras.Input(shape)
    return keras.Model(x, layer(x))


def assert_exact(model, data, folder):
    """Checks the clone and the exported file, and returns the quantized model."""
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)
    assert len(clone.trainable_weights) == len(model.trainable_weights)
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    assert_file_exact(quantized, data, folder)
    return quantized


def assert_file_exact(quantized, data, folder):
    keras_qat.export_litert(quantized, folder / "model.tflite")
    report = keras_qat.verify(quantized, folder / "model.tflite", data, verbose=0)
    assert report.exact, str(report)


def names(model):
    """Returns the classes of the layers, inputs left out."""
    return [type(layer).__name__ for layer in model.layers[2:]]
