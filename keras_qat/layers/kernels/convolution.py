"""CONV_2D and DEPTHWISE_CONV_2D."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.registry import refuse, register
from keras_qat.layers.core.sequences import lower_on_image, planar
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.layers.moving.reshape import check_channels_last
from keras_qat.scheme import Scheme


class WindowedLayer(WeightedLayer):
    """Base class of layers with a kernel that slides over steps or an image."""

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer. Raises for `channels_first`, and for windows beyond exact sums."""
        check_channels_last(node.name, node.head.data_format)
        most = math.inf if scheme is None else accumulate.most_taps(scheme.largest_product)
        if math.prod(node.head.kernel_size) > most:
            raise UnsupportedLayerError(
                "The window is too large for an exact accumulator.",
                layer=node.name,
                received=f"kernel_size={tuple(node.head.kernel_size)}",
                expected=f"at most {most} taps",
                fix="Use a smaller kernel, or several in a row.",
            )
        return super().from_match(node, scheme)

    def lower(self, builder, *inputs):
        """Adds the operator, between two RESHAPEs if the input is a sequence."""

        def add(x, **output):
            return self.add_operator(builder, x, **output)

        return lower_on_image(builder, inputs[0], add)

    def add_operator(self, builder, x, **output):
        """Adds the operator to an image.

        Args:
            builder: A `keras_qat.lowering.Builder`.
            x: LiteRT tensor of rank 4.
            **output: Arguments of the builder about the operator's output.

        Returns:
            The LiteRT tensor of the output, of rank 4.
        """
        raise NotImplementedError

    def window_options(self) -> dict:
        """Returns the options of all operators with a sliding kernel."""
        vertical, horizontal = planar(self.strides)
        return {
            "padding": "SAME" if self.padding == "same" else "VALID",
            "strideH": vertical,
            "strideW": horizontal,
            "fusedActivationFunction": self.fused_code(),
        }

    def dilation_options(self) -> dict:
        """Returns the options for the distance of the taps."""
        vertical, horizontal = planar(self.dilation_rate)
        return {"dilationHFactor": vertical, "dilationWFactor": horizontal}


class Convolution(WindowedLayer):
    """Base class of layers that are a CONV_2D; the kernel is (*window, in / groups, out)."""

    operators = ("CONV_2D",)

    def apply_kernel(self, x, kernel):
        """Convolves in float."""
        return self.convolution_op(x, kernel)

    def accumulate(self, centered, kernel):
        """Convolves exactly, splitting input channels where float32 would not be exact."""
        return accumulate.conv(
            centered,
            kernel,
            convolve=self.apply_kernel,
            largest_product=self._scheme().largest_product,
        )

    def add_operator(self, builder, x, **output):
        """Adds one CONV_2D; the kernel is stored as (out, height, width, in)."""
        kernel, grid, bias = self.lower_weights()
        kernel = kernel.reshape(*planar(kernel.shape[:-2]), *kernel.shape[-2:])
        weights = builder.weights(np.moveaxis(kernel, -1, 0), grid, axis=0)
        return builder.operator(
            "CONV_2D",
            (x, weights, builder.bias(bias, x, grid)),
            options={**self.window_options(), **self.dilation_options()},
            **output,
        )


class DepthwiseConvolution(WindowedLayer):
    """Base class of layers that are a DEPTHWISE_CONV_2D; kernel (*window, channels, multiplier)."""

    operators = ("DEPTHWISE_CONV_2D",)
    channel_axes = (-2, -1)

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
        return accumulate.depthwise(
            centered,
            kernel,
            convolve=self.apply_kernel,
            largest_product=self._scheme().largest_product,
        )

    def add_operator(self, builder, x, **output):
        """Adds one DEPTHWISE_CONV_2D; the kernel is stored as (1, height, width, out)."""
        kernel, grid, bias = self.lower_weights()
        kernel = kernel.reshape((1, *planar(kernel.shape[:-2]), -1))
        return builder.operator(
            "DEPTHWISE_CONV_2D",
            (x, builder.weights(kernel, grid, axis=3), builder.bias(bias, x, grid)),
            options={
                **self.window_options(),
                **self.dilation_options(),
                "depthMultiplier": self.depth_multiplier,
            },
            **output,
        )


@register(layer_of(keras.layers.Conv2D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv2D(Convolution, keras.layers.Conv2D):
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


@register(layer_of(keras.layers.DepthwiseConv2D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QDepthwiseConv2D(DepthwiseConvolution, keras.layers.DepthwiseConv2D):
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


refuse(
    layer_of(keras.layers.Conv3D, keras.layers.Conv3DTranspose),
    reason="LiteRT convolves volumes in float only.",
    fix="Use 2D convolutions, over slices of the volume or with its depth among the channels.",
)
refuse(
    layer_of(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D),
    reason="LiteRT has no convolutional LSTM, and no loop over the steps of a state that has an "
    "integer form.",
    fix="Use convolutions over a fixed number of steps, stacked as channels.",
)
