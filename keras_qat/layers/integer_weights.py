"""The integers of a layer with a kernel: kernel, bias and multipliers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.arithmetic.multiply import product_multiplier
from keras_qat.quantizers import quantize_weights, reciprocal, weight_grid
from keras_qat.scheme import Scheme

# A bias is the sum of two terms; each stays below 2^29, so that accumulators do not overflow.
_LARGEST_BIAS_TERM = 2.0**29
# XNNPACK refuses a multiplier below 2^-32; only a channel without weights would have one.
_SMALLEST_MULTIPLIER = 2.0**-31


class IntegerWeights(NamedTuple):
    """The integers of a layer with a kernel, computed from its float variables.

    Attributes:
        kernel: float32 whole numbers, the zero point subtracted, in the shape of the Keras kernel.
        kernel_scale: float32, one for each output channel, or a single one.
        kernel_zero_point: The integer that stands for 0.0, int32 or a number.
        bias: int32, one for each output channel, at `input_scale * kernel_scale`.
        multiplier: int32, as many as scales.
        shift: int32, as many as scales.
    """

    kernel: Any
    kernel_scale: Any
    kernel_zero_point: Any
    bias: Any
    multiplier: Any
    shift: Any


class FoldedWeights(NamedTuple):
    """Kernel and bias as they are deployed, in float: a batch normalization is folded into them.

    Attributes:
        kernel: float32 tensor in the shape of the Keras kernel.
        offset: float32 tensor, the first term of the bias, one for each output channel.
        shifted: float32 tensor, the second term: their sum would depend on the compiler.
        channel_axes: The dimensions of the kernel that number its output channels, negative.
    """

    kernel: Any
    offset: Any
    shifted: Any
    channel_axes: tuple[int, ...]


class BiasPressure(NamedTuple):
    """How far biases make the steps of weights larger than the weights need.

    Attributes:
        needed: float32 array, the scale that each channel's weights need by themselves.
        given: float32 array, the scale that they get, at which their bias fits in 32 bits.
    """

    needed: Any
    given: Any

    @property
    def factor(self):
        """float32 array, not less than 1: how many times fewer steps are left for the weights."""
        return self.given / self.needed


def integer_weights(
    folded: FoldedWeights, input_scale: Any, output_scale: Any, scheme: Scheme
) -> IntegerWeights:
    """Computes the integers of a layer with a kernel.

    Inference and export call this same function, and it is written so that no compiler can change
    its result: no sum of products, no division by a constant.

    Args:
        folded: The weights in float.
        input_scale: float32 scalar tensor.
        output_scale: float32 scalar tensor.
        scheme: Gives the integer limits, and whether each channel has a scale of its own.

    Returns:
        The `IntegerWeights`.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> kernel, bias = np.array([[0.5, 2.0], [-1.27, 0.0]], "float32"), np.array([1.0, 0.0])
    >>> folded = FoldedWeights(kernel, bias.astype("float32"), np.zeros(2, "float32"), (-1,))
    >>> result = integer_weights(folded, ops.array(0.5), ops.array(0.1), get_scheme("int8"))
    >>> result.kernel.numpy().tolist(), result.bias.numpy().tolist()
    ([[50.0, 127.0], [-127.0, 0.0]], [200, 0])
    """
    axes = scaled_axes(folded.kernel, folded.channel_axes, scheme)
    least = _least_scale(folded, input_scale, output_scale, scheme)
    grid = weight_grid(folded.kernel, axes, scheme, least)
    scale = ops.reshape(grid.scale, (-1,))
    per_step = reciprocal(input_scale * scale)
    bias = _round(folded.offset * per_step) + _round(folded.shifted * per_step)
    rule = product_multiplier if scheme.rounds_scale_products else conv_multiplier
    multiplier = rule(input_scale, scale, output_scale)
    quantized = quantize_weights(folded.kernel, grid)
    return IntegerWeights(quantized, scale, grid.zero_point, bias, *multiplier)


def bias_pressure(
    folded: FoldedWeights, input_scale: Any, output_scale: Any, scheme: Scheme
) -> BiasPressure:
    """Returns by how much biases make the scales of weights larger.

    Args:
        folded: The weights in float.
        input_scale: float32 scalar tensor.
        output_scale: float32 scalar tensor.
        scheme: Gives the integer limits, and whether each channel has a scale of its own.

    Returns:
        numpy arrays of as many scales as the kernel has: one for each output channel, or one. A
        channel of which all weights are 0 needs no more than it gets.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> kernel, bias = np.array([[1.27, 1.27]], "float32"), np.array([1.0, 2.0**31], "float32")
    >>> folded = FoldedWeights(kernel, bias, np.zeros(2, "float32"), (-1,))
    >>> bias_pressure(folded, 1.0, 1.0, get_scheme("int8")).factor.round().tolist()
    [1.0, 400.0]
    """
    axes = scaled_axes(folded.kernel, folded.channel_axes, scheme)
    least = _least_scale(folded, input_scale, output_scale, scheme)
    needed, given = (
        ops.convert_to_numpy(weight_grid(folded.kernel, axes, scheme, limit).scale).reshape(-1)
        for limit in (None, least)
    )
    is_used = np.any(ops.convert_to_numpy(folded.kernel), axis=axes).reshape(-1)
    return BiasPressure(np.where(is_used, needed, given), given)


def _least_scale(folded: FoldedWeights, input_scale, output_scale, scheme: Scheme):
    """A channel with hardly any weights gets a scale at which its bias fits in 32 bits."""
    size = ops.maximum(ops.abs(folded.offset), ops.abs(folded.shifted))
    per_input = reciprocal(input_scale)
    smallest = output_scale * np.float32(_SMALLEST_MULTIPLIER) * per_input
    least = ops.maximum(size * np.float32(1 / _LARGEST_BIAS_TERM) * per_input, smallest)
    if scheme.weight_per_channel:
        return ops.reshape(least, channel_shape(folded.kernel, folded.channel_axes))
    return ops.max(least)


def channel_shape(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which one value for each output channel broadcasts against a kernel."""
    summed = summed_axes(kernel, channel_axes)
    return tuple(1 if axis in summed else size for axis, size in enumerate(kernel.shape))


def summed_axes(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of a kernel that one output channel has weights along."""
    rank = len(kernel.shape)
    return tuple(axis for axis in range(rank) if axis - rank not in channel_axes)


def scaled_axes(kernel, channel_axes: tuple[int, ...], scheme: Scheme) -> tuple[int, ...] | None:
    """The dimensions of a kernel that one weight scale spans, None for all."""
    return summed_axes(kernel, channel_axes) if scheme.weight_per_channel else None


def _round(x):
    return ops.cast(ops.round(x), "int32")
