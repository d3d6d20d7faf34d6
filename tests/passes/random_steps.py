"""Steps of random models that build Keras layers and `keras.ops`."""

from typing import Any

import keras
from keras import layers, ops

FUNCTIONS = (
    "relu",
    "relu6",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "swish",
    "softplus",
    "elu",
    "gelu",
    "hard_swish",
    "hard_sigmoid",
    "softsign",
)
ARGUMENTS = (None, "relu", *FUNCTIONS)


class ImageSteps:
    """Steps on images. Most return an image of the same size."""

    name: Any
    shared: dict

    def conv(self, x, choices):
        return layers.Conv2D(
            choices.among(x.shape[-1], x.shape[-1], 3),
            kernel_size=choices.among(1, 3),
            strides=choices.among(1, 1, 1, 2),
            padding="same",
            use_bias=choices.among(True, True, False),
            activation=choices.among(*ARGUMENTS),
            name=self.name("conv"),
        )

    def conv_step(self, x, choices):
        return self.conv(x, choices)(x)

    def depthwise_step(self, x, choices):
        layer = layers.DepthwiseConv2D(
            3,
            padding="same",
            depth_multiplier=choices.among(1, 1, 1, 2),
            activation=choices.among(*ARGUMENTS),
            name=self.name("depthwise"),
        )
        return layer(x)

    def separable_step(self, x, choices):
        layer = layers.SeparableConv2D(
            choices.among(2, 3),
            3,
            padding=choices.among("same", "same", "valid") if x.shape[1] > 3 else "same",
            use_bias=choices.among(True, False),
            activation=choices.among(*ARGUMENTS),
            name=self.name("separable"),
        )
        return layer(x)

    def transposed_step(self, x, choices):
        layer = layers.Conv2DTranspose(
            choices.among(2, 3),
            choices.among(2, 3),
            strides=choices.among(1, 2) if x.shape[1] < 7 else 1,
            padding="same",
            activation=choices.among(*ARGUMENTS),
            name=self.name("transposed"),
        )
        return layer(x)

    def dense_step(self, x, choices):
        units, activation = choices.among(2, 3), choices.among(*ARGUMENTS)
        return layers.Dense(units, activation=activation, name=self.name("dense"))(x)

    def norm_step(self, x, choices):
        norm = layers.BatchNormalization(
            center=choices.among(True, True, False),
            scale=choices.among(True, True, False),
            name=self.name("norm"),
        )
        return norm(x)

    def function_step(self, x, choices):
        function = choices.among(*FUNCTIONS)
        kind = choices.among("layer", "operation", "class")
        if kind == "operation":
            return getattr(ops, function)(x)
        if kind == "class":
            classes = layers.ReLU, layers.LeakyReLU, layers.ELU
            return choices.among(*classes)(name=self.name("function"))(x)
        return layers.Activation(function, name=self.name("function"))(x)

    def prelu_step(self, x, choices):
        axes = choices.among(list(range(1, len(x.shape) - 1)), None)
        values = keras.initializers.RandomUniform(0.1, 0.4, seed=0)
        return layers.PReLU(values, shared_axes=axes, name=self.name("prelu"))(x)

    def pool_step(self, x, choices):
        layer = layers.MaxPooling2D(
            2, strides=choices.among(1, 2), padding="same", name=self.name("pool")
        )
        return layer(x)

    def average_step(self, x, choices):
        size = min(choices.among(2, 3), x.shape[1])
        return layers.AveragePooling2D(size, strides=1, padding=choices.among("same", "valid"))(x)

    def upsampled_step(self, x, choices):
        method = choices.among("nearest", "bilinear")
        return layers.UpSampling2D(2, interpolation=method)(x) if x.shape[1] < 7 else x + 1.0

    def dropout_step(self, x, choices):
        kinds = layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout
        return choices.among(*kinds)(choices.among(0.0, 0.5))(x)

    def nothing_step(self, x, choices):
        return choices.among(layers.Identity(), layers.Activation("linear"))(x)

    def pad_step(self, x, choices):
        return layers.ZeroPadding2D(((0, choices.among(0, 1)), (1, 0)))(x)

    def shared_step(self, x, choices):
        """Calls an existing layer a second time if its number of input channels fits."""
        key = x.shape[-1], choices.among(0, 1)
        if key not in self.shared:
            self.shared[key] = self.conv(x, choices)
        return self.shared[key](x)


class SequenceSteps:
    """Steps on sequences."""

    name: Any

    def sequence_permute_step(self, x, choices):
        turned = layers.Permute((2, 1))(x)
        return choices.among(turned, layers.Permute((2, 1))(turned))

    def sequence_conv_step(self, x, choices):
        layer = layers.Conv1D(
            choices.among(2, 3),
            choices.among(1, 3),
            strides=choices.among(1, 1, 2),
            padding=choices.among("same", "causal"),
            activation=choices.among(*ARGUMENTS),
            name=self.name("conv1d"),
        )
        return layer(x)

    def sequence_separable_step(self, x, choices):
        layer = layers.SeparableConv1D(
            choices.among(2, 3),
            3,
            padding="same",
            activation=choices.among(*ARGUMENTS),
            name=self.name("separable1d"),
        )
        return layer(x)

    def sequence_depthwise_step(self, x, choices):
        activation = choices.among(*ARGUMENTS)
        name = self.name("depthwise1d")
        return layers.DepthwiseConv1D(3, padding="same", activation=activation, name=name)(x)

    def sequence_transposed_step(self, x, choices):
        layer = layers.Conv1DTranspose(
            2, 3, padding="same", activation=choices.among(*ARGUMENTS), name=self.name("transposed")
        )
        return layer(x)

    def sequence_pool_step(self, x, choices):
        kind = choices.among(layers.MaxPooling1D, layers.AveragePooling1D)
        return kind(2, strides=choices.among(1, 2), padding="same")(x)


class MergeSteps:
    """Steps that combine tensors of one shape."""

    name: Any
    like: Any

    def add_step(self, x, choices):
        return layers.Add(name=self.name("add"))([x, self.like(x, choices)])

    def sum_of_three_step(self, x, choices):
        others = [self.like(x, choices), self.like(x, choices)]
        return layers.Add(name=self.name("add"))([x, *others])

    def merge_step(self, x, choices):
        kinds = layers.Subtract, layers.Multiply, layers.Maximum, layers.Minimum, layers.Average
        return choices.among(*kinds)(name=self.name("merge"))([x, self.like(x, choices)])

    def concatenate_step(self, x, choices):
        others = [self.like(x, choices) for _ in range(choices.among(1, 2))]
        axis = choices.among(-1, -1, 1)
        return layers.Concatenate(axis, name=self.name("concatenate"))([x, *others])

    def arithmetic_step(self, x, choices):
        other = self.like(x, choices)
        y = choices.among(other, 0.5, -1.5)
        scaled = layers.Rescaling(choices.among(0.5, -1.5), offset=choices.among(0.0, 1.0))
        return choices.among(x + y, x - y, y - x, x * other, x / 2.5, scaled(x))
