"""CONV_2D and DEPTHWISE_CONV_2D."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of, maybe
from keras_qat.layers.activation_names import FUSED, FUSED_CODES, function_name
from keras_qat.layers.base import QuantizedLayer
from keras_qat.layers.batch_normalization import BATCH_NORM
from keras_qat.layers.registry import register
from keras_qat.layers.weighted import WeightedLayer
from keras_qat.scheme import Scheme

# Of more the sum of products could pass 2^24, up to which float32 is exact.
_MOST_TAPS = (accumulate.EXACT_BOUND - 1) // (255 * 127)


class ConvolutionLayer(WeightedLayer):
    """What CONV_2D and DEPTHWISE_CONV_2D have in common."""

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer; `channels_first` and windows beyond exact sums are refused."""
        if node.head.data_format != "channels_last":
            raise UnsupportedLayerError(
                "LiteRT's convolutions take channels last.",
                layer=node.name,
                received=f"data_format='{node.head.data_format}'",
                expected="data_format='channels_last'",
                fix="Define the model with data_format='channels_last'; kernels keep their shape.",
            )
        if math.prod(node.head.kernel_size) > _MOST_TAPS:
            raise UnsupportedLayerError(
                "The window is too large for an exact accumulator.",
                layer=node.name,
                received=f"kernel_size={tuple(node.head.kernel_size)}",
                expected=f"at most {_MOST_TAPS} taps",
                fix="Use a smaller kernel, or several in a row.",
            )
        return super().from_match(node, scheme)

    def convolution_options(self) -> dict:
        """Returns the options that both operators have."""
        return {
            "padding": self.padding.upper(),
            "strideH": self.strides[0],
            "strideW": self.strides[1],
            "dilationHFactor": self.dilation_rate[0],
            "dilationWFactor": self.dilation_rate[1],
            "fusedActivationFunction": FUSED_CODES[function_name(self.activation)],
        }


@register(layer_of(keras.layers.Conv2D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv2D(ConvolutionLayer, keras.layers.Conv2D):
    """2D convolution with folded batch normalization and fused activation: one CONV_2D.

    Takes the arguments of `keras.layers.Conv2D`; `activation` is applied after the batch
    normalization.

    Args:
        *args: Arguments of `keras.layers.Conv2D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Conv2D`.

    Example:
    >>> layer = QConv2D(8, 3, batch_norm=True, activation="relu6")
    >>> layer(np.ones((1, 5, 5, 3), "float32")).shape
    TensorShape([1, 3, 3, 8])
    """

    def apply_kernel(self, x, kernel):
        """Convolves in float."""
        return self.convolution_op(x, kernel)

    def accumulate(self, centered, kernel):
        """Convolves exactly, splitting input channels where float32 would not be exact."""
        return accumulate.conv(centered, kernel, convolve=self.apply_kernel)

    def lower(self, builder, *inputs):
        """Adds one CONV_2D; the kernel is stored as (out, height, width, in)."""
        kernel, scale, bias = self.lower_weights()
        weights = builder.weights(np.moveaxis(kernel, -1, 0), scale, axis=0)
        return builder.operator(
            "CONV_2D",
            (inputs[0], weights, builder.bias(bias, inputs[0], scale)),
            version=3,
            options_type="Conv2DOptions",
            options=self.convolution_options(),
        )


@register(layer_of(keras.layers.DepthwiseConv2D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QDepthwiseConv2D(ConvolutionLayer, keras.layers.DepthwiseConv2D):
    """Depthwise convolution with folded batch normalization: one DEPTHWISE_CONV_2D.

    Args:
        *args: Arguments of `keras.layers.DepthwiseConv2D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.DepthwiseConv2D`.

    Example:
    >>> layer = QDepthwiseConv2D(3, padding="same", batch_norm=True, activation="relu")
    >>> layer(np.ones((1, 5, 5, 4), "float32")).shape
    TensorShape([1, 5, 5, 4])
    """

    channel_dims = 2

    def apply_kernel(self, x, kernel):
        """Convolves each channel by itself, in float."""
        return ops.depthwise_conv(
            x,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def accumulate(self, centered, kernel):
        """Convolves exactly: a channel has few taps."""
        return accumulate.depthwise(centered, kernel, convolve=self.apply_kernel)

    def lower(self, builder, *inputs):
        """Adds one DEPTHWISE_CONV_2D; the kernel is stored as (1, height, width, out)."""
        kernel, scale, bias = self.lower_weights()
        weights = builder.weights(kernel.reshape((1, *kernel.shape[:2], -1)), scale, axis=3)
        options = {**self.convolution_options(), "depthMultiplier": self.depth_multiplier}
        return builder.operator(
            "DEPTHWISE_CONV_2D",
            (inputs[0], weights, builder.bias(bias, inputs[0], scale)),
            version=3,
            options_type="DepthwiseConv2DOptions",
            options=options,
        )
