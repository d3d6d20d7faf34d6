"""CONV_2D and DEPTHWISE_CONV_2D."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.graph import Matcher, layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import refuse, register
from keras_qat.layers.core.sequences import planar
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.input_affine import INPUT_AFFINE
from keras_qat.layers.kernels.kernel_operator import channel_sums
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.layers.kernels.windows import (
    WindowOperator,
    dilation_options,
    taken_steps,
    window_options,
)


class Convolution(WindowOperator):
    """CONV_2D. The kernel of the layer is (*window, inputs / groups, outputs)."""

    code = "CONV_2D"

    def apply(self, layer: Any, x, kernel):
        """Convolves in float."""
        if layer.padding == "causal":
            x = ops.pad(x, ((0, 0), (_steps_before(layer), 0), (0, 0)))
        x, strides = taken_steps(layer, x)
        return ops.conv(
            x,
            kernel,
            strides=strides,
            padding="same" if layer.padding == "same" else "valid",
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    def accumulate(self, layer: Any, values, kernel):
        """Convolves exactly, splitting input channels where float32 would not be exact."""
        return accumulate.conv(
            values,
            kernel,
            convolve=functools.partial(self.apply, layer),
            largest_product=layer.scheme.largest_summand,
        )

    def spread_inputs(self, layer: Any, values):
        """Shapes one value for each input channel. Output channels see those of their group."""
        of_groups = values.reshape(layer.groups, -1)
        return np.repeat(of_groups.T, layer.filters // layer.groups, axis=1)

    def to_matrices(self, layer: Any, kernel: np.ndarray) -> np.ndarray:
        """Returns one matrix for each group."""
        return _grouped(kernel.reshape(*kernel.shape[:-1], layer.groups, -1))

    def from_matrices(self, layer: Any, matrices: np.ndarray) -> np.ndarray:
        """Returns the kernel of `to_matrices`."""
        return np.swapaxes(matrices, 0, 1).reshape(*layer.kernel.shape[:-1], -1)

    def dtype(self, layer: Any) -> str:
        """Returns the type that the rule depends on. Groups with 4-bit weights run unoptimized."""
        return super().dtype(layer) if layer.groups == 1 else layer.scheme.dtype

    def add_to_image(self, layer: Any, builder, x, **output):
        """Adds one CONV_2D, whose weights are (out, height, width, in); a PAD if it is causal."""
        x = _with_steps_before(layer, builder, x)
        kernel, grid, bias = layer.lower_weights()
        kernel = kernel.reshape(*planar(kernel.shape[:-2]), *kernel.shape[-2:])
        weights = builder.weights(np.moveaxis(kernel, -1, 0), grid, axis=0)
        return builder.operator(
            self.code,
            (x, weights, builder.bias(bias, x, grid)),
            options={**window_options(layer), **dilation_options(layer)},
            **output,
        )


def _grouped(kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel `(..., groups, outputs)` as matrices `(groups, products, outputs)`."""
    return np.swapaxes(kernel.reshape(-1, *kernel.shape[-2:]), 0, 1)


def _steps_before(layer: Any) -> int:
    """Returns how many zeros a causal convolution needs before the first step."""
    if layer.padding != "causal":
        return 0
    return layer.dilation_rate[0] * (layer.kernel_size[0] - 1)


def _with_steps_before(layer: Any, builder, x):
    """Adds a PAD for the zeros before a causal convolution."""
    before = _steps_before(layer)
    if not before:
        return x
    batch, height, width, channels = x.shape
    pads = np.array([(0, 0), (0, 0), (before, 0), (0, 0)], "int32")
    return builder.operator(
        "PAD",
        (x, builder.constant("paddings", pads)),
        part="padded",
        shape=(batch, height, width + before, channels),
        quantization=x.quantization,
    )


class DepthwiseConvolution(WindowOperator):
    """DEPTHWISE_CONV_2D. The kernel of the layer is (*window, channels, multiplier)."""

    code = "DEPTHWISE_CONV_2D"
    channel_axes = (-2, -1)

    def apply(self, layer: Any, x, kernel):
        """Convolves each channel separately, in float."""
        return ops.depthwise_conv(
            x,
            kernel,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    def to_matrices(self, layer: Any, kernel: np.ndarray) -> np.ndarray:
        """Returns one matrix for each input channel."""
        del layer
        return _grouped(kernel)

    def from_matrices(self, layer: Any, matrices: np.ndarray) -> np.ndarray:
        """Returns the kernel of `to_matrices`."""
        return np.swapaxes(matrices, 0, 1).reshape(*layer.kernel.shape[:-1], -1)

    def accumulate(self, layer: Any, values, kernel):
        """Convolves exactly: a channel has few taps."""
        return channel_sums(self, layer, values, kernel)

    def add_to_image(self, layer: Any, builder, x, **output):
        """Adds one DEPTHWISE_CONV_2D; the weights are (1, height, width, out)."""
        kernel, grid, bias = layer.lower_weights()
        kernel = kernel.reshape((1, *planar(kernel.shape[:-2]), -1))
        return builder.operator(
            self.code,
            (x, builder.weights(kernel, grid, axis=3), builder.bias(bias, x, grid)),
            options={
                **window_options(layer),
                **dilation_options(layer),
                "depthMultiplier": layer.depth_multiplier,
            },
            **output,
        )


@register(maybe(INPUT_AFFINE), layer_of(keras.layers.Conv2D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv2D(WeightedLayer, keras.layers.Conv2D):
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

    operators = ("CONV_2D",)
    kernel_operator = Convolution()


@register(
    maybe(INPUT_AFFINE), layer_of(keras.layers.DepthwiseConv2D), maybe(BATCH_NORM), maybe(FUSED)
)
@keras.saving.register_keras_serializable("keras_qat")
class QDepthwiseConv2D(WeightedLayer, keras.layers.DepthwiseConv2D):
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

    operators = ("DEPTHWISE_CONV_2D",)
    kernel_operator = DepthwiseConvolution()


def _overlaps_in_depth(operation: Any) -> bool:
    """Returns whether this is a `Conv3DTranspose` that adds frames to each other."""
    is_transposed = type(operation) is keras.layers.Conv3DTranspose
    return is_transposed and operation.kernel_size[0] != operation.strides[0]


refuse(
    Matcher("keras.layers.Conv3DTranspose with frames that overlap", _overlaps_in_depth),
    reason="LiteRT convolves volumes in float only.",
    fix="Use as many strides as taps along the depth, or `keras.layers.UpSampling3D` and "
    "`keras.layers.Conv3D`.",
)
