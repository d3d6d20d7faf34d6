"""Steps of random models that build parts: nested models, subclasses, drop-in layers."""

from typing import Any

import keras
from keras import layers

from keras_qat.layers import QAdd, QConcatenate, QConv2D, QDense, QDepthwiseConv2D, QSeparableConv2D
from tests.passes.random_steps import ARGUMENTS


class Residual(layers.Layer):
    """A custom layer that consists of layers."""

    def __init__(self, conv, norm, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.norm = conv, norm

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))
        super().build(input_shape)

    def call(self, x):
        y = keras.ops.relu(self.norm(self.conv(x)))
        return x + y if x.shape == y.shape else y


class Branches(keras.Model):
    """A subclassed model."""

    def __init__(self, left, right, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = left, right

    def call(self, x):
        return keras.ops.concatenate([self.left(x), self.right(x)], axis=-1)


class BlockSteps:
    """Steps that add several layers."""

    name: Any
    conv: Any
    like: Any

    def block(self, x, choices, inner=None):
        inputs = keras.Input(x.shape[1:])
        y = (inner or self.conv(x, choices))(inputs)
        y = layers.BatchNormalization(name=self.name("norm"))(y)
        y = layers.ReLU(name=self.name("relu"))(y)
        outputs = layers.Add(name=self.name("add"))([y, inputs]) if y.shape == x.shape else y
        return keras.Model(inputs, outputs, name=self.name("block"))

    def nested_step(self, x, choices):
        block = self.block(x, choices)
        return (self.block(x, choices, inner=block) if choices.among(0, 1) else block)(x)

    def nested_twice_step(self, x, choices):
        block = self.block(x, choices)
        return layers.Add(name=self.name("add"))([block(x), block(self.like(x, choices))])

    def sequential_step(self, x, choices):
        parts = [self.conv(x, choices), layers.BatchNormalization(), layers.Activation("tanh")]
        return keras.Sequential(parts[: choices.among(1, 2, 3)], name=self.name("sequential"))(x)

    def own_layer_step(self, x, choices):
        norm = layers.BatchNormalization(name=self.name("norm"))
        return Residual(self.conv(x, choices), norm, name=self.name("residual"))(x)

    def subclassed_step(self, x, choices):
        left = self.conv(x, choices)
        right = layers.Conv2D(2, 1, left.strides, activation="relu", name=self.name("conv"))
        return Branches(left, right, name=self.name("branches"))(x)

    def block_conv_step(self, x, choices):
        kind = choices.among(QConv2D, QConv2D, QDepthwiseConv2D, QSeparableConv2D)
        filters = () if kind is QDepthwiseConv2D else (choices.among(x.shape[-1], 3),)
        layer = kind(
            *filters,
            choices.among(1, 3),
            padding="same",
            batch_norm=choices.among(True, False),
            activation=choices.among(*ARGUMENTS),
            name=self.name("block"),
        )
        return layer(x)

    def block_dense_step(self, x, choices):
        layer = QDense(
            choices.among(2, 3),
            batch_norm=choices.among(True, False),
            activation=choices.among(*ARGUMENTS),
            name=self.name("block"),
        )
        return layer(x)

    def block_add_step(self, x, choices):
        other = self.like(x, choices)
        return QAdd(activation=choices.among(*ARGUMENTS), name=self.name("block"))([x, other])

    def block_concatenate_step(self, x, choices):
        return QConcatenate(name=self.name("block"))([x, self.like(x, choices)])
