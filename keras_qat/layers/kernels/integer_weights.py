"""The integers of a layer with a kernel: its kernel and its bias."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.backend import compiled, float64, maximum
from keras_qat.errors import UnsupportedLayerError
from keras_qat.quantizers import quantize_weights, reciprocal, weight_grid
from keras_qat.scheme import Scheme

# XNNPACK refuses multipliers of 2^8 and more.
_LARGEST_SHIFT = 8
# Kernels shift sums to the left in 32 bits before they multiply.
_LARGEST_SHIFTED = 2**31
# XNNPACK refuses multipliers below 2^-32. Only a channel without weights would have one.
_SMALLEST_MULTIPLIER = 2.0**-31


class IntegerWeights(NamedTuple):
    """The integers of a layer with a kernel, computed from its float variables.

    Attributes:
        kernel: float32 whole numbers, the zero point subtracted, in the shape of the Keras kernel.
        kernel_scale: float32, one scale for each output channel, or a single scale.
        kernel_zero_point: The integer that stands for 0.0, int32 or a number.
        bias: int32, one for each output channel, at `input_scale * kernel_scale`.
    """

    kernel: Any
    kernel_scale: Any
    kernel_zero_point: Any
    bias: Any


class FoldedWeights(NamedTuple):
    """The deployed kernel and bias in float, into which a batch normalization is folded.

    Attributes:
        kernel: float32 tensor in the shape of the Keras kernel.
        offset: float32 tensor, the first term of the bias, one for each output channel.
        shifted: float32 tensor, the second term. The sum of both would depend on the compiler.
        channel_axes: The dimensions of the kernel that number its output channels, negative.
        step: float32 tensor that broadcasts against the kernel, the size of a step of its grid.
            None for steps that cover all weights.
    """

    kernel: Any
    offset: Any
    shifted: Any
    channel_axes: tuple[int, ...]
    step: Any = None


class BiasPressure(NamedTuple):
    """The factor by which biases enlarge the scales of weights.

    Attributes:
        needed: float32 array, the scale that each channel's weights need without the bias.
        given: float32 array, the scale in use, at which the channel's bias fits in 32 bits.
    """

    needed: Any
    given: Any

    @property
    def factor(self):
        """float32 array, not less than 1: the factor by which the weights have fewer steps."""
        return self.given / self.needed


def integer_weights(
    folded: FoldedWeights, input_scale: Any, output_scale: Any, scheme: Scheme
) -> IntegerWeights:
    """Computes the integers of a layer with a kernel.

    Inference and export call this function. It contains no sum of products and no division by a
    constant, so that no compiler can change its result.

    Args:
        folded: The weights in float.
        input_scale: float32 scalar tensor.
        output_scale: float32 scalar tensor.
        scheme: The scheme, for the integer limits and the number of scales.

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
    for_sums = least_scale_for_sums(folded.kernel, folded.channel_axes, scheme)
    tensors = *folded[:3], input_scale, output_scale
    optional = {"for_sums": for_sums, "step": folded.step}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    options = {"given": tuple(given), "channel_axes": folded.channel_axes, "scheme": scheme}
    return _integer_weights(*tensors, *given.values(), **options)


@compiled
def _integer_weights(
    kernel, offset, shifted, input_scale, output_scale, *optional, given, channel_axes, scheme
) -> IntegerWeights:
    limits = dict(zip(given, optional, strict=True))
    folded = FoldedWeights(kernel, offset, shifted, channel_axes)
    least = _least_scale(folded, input_scale, output_scale, scheme, limits.get("for_sums"))
    axes = scaled_axes(kernel, channel_axes, scheme)
    grid = weight_grid(kernel, axes, scheme, least, limits.get("step"))
    scale = ops.reshape(grid.scale, (-1,))
    per_step = reciprocal(input_scale * scale)
    bias = _round(offset * per_step) + _round(shifted * per_step)
    return IntegerWeights(quantize_weights(kernel, grid), scale, grid.zero_point, bias)


def bias_pressure(
    folded: FoldedWeights, input_scale: Any, output_scale: Any, scheme: Scheme
) -> BiasPressure:
    """Returns the factor by which biases enlarge the scales of weights.

    Args:
        folded: The weights in float.
        input_scale: float32 scalar tensor.
        output_scale: float32 scalar tensor.
        scheme: The scheme, for the integer limits and the number of scales.

    Returns:
        numpy arrays with one value for each scale of the kernel: one for each output channel, or
        one. For a channel with only zero weights, both scales are equal.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> kernel, bias = np.array([[1.27, 1.27]], "float32"), np.array([1.0, 2.0**31], "float32")
    >>> folded = FoldedWeights(kernel, bias, np.zeros(2, "float32"), (-1,))
    >>> bias_pressure(folded, 1.0, 1.0, get_scheme("int8")).factor.round().tolist()
    [1.0, 400.0]
    """
    axes = scaled_axes(folded.kernel, folded.channel_axes, scheme)
    for_sums = least_scale_for_sums(folded.kernel, folded.channel_axes, scheme)
    least = _least_scale(folded, input_scale, output_scale, scheme, for_sums)
    needed, given = (
        weight_grid(folded.kernel, axes, scheme, limit, folded.step).scale
        for limit in (None, least)
    )
    needed, given = (ops.convert_to_numpy(scale).reshape(-1) for scale in (needed, given))
    is_used = np.any(ops.convert_to_numpy(folded.kernel), axis=axes).reshape(-1)
    return BiasPressure(np.where(is_used, needed, given), given)


def _least_scale(
    folded: FoldedWeights, input_scale, output_scale, scheme: Scheme, for_sums: Any = None
):
    """Returns each channel's scale at which its bias and its sum of products fit in 32 bits."""
    size = ops.maximum(ops.abs(folded.offset), ops.abs(folded.shifted))
    with float64():  # TensorFlow multiplies in another order if a scale is a constant
        # A bias is the sum of two terms.
        for_bias = ops.cast(size, "float64") * (2 / scheme.largest_bias)
        for_kernels = ops.cast(output_scale, "float64") * _SMALLEST_MULTIPLIER
        least = maximum(for_bias, for_kernels) / ops.cast(input_scale, "float64")
        least = ops.cast(least, "float32")
    if scheme.weight_per_channel:
        least = ops.reshape(least, channel_shape(folded.kernel, folded.channel_axes))
    else:
        least = ops.max(least)
    return least if for_sums is None else ops.maximum(least, for_sums)


def least_scale_for_sums(kernel: Any, channel_axes: tuple[int, ...], scheme: Scheme) -> Any:
    """Returns the scale of weights at which no sum of products exceeds the scheme's bound.

    Args:
        kernel: float32 tensor, the folded kernel.
        channel_axes: The dimensions of the kernel that number its output channels.
        scheme: The scheme, for the largest integer and the number of scales.

    Returns:
        float32 tensor that broadcasts with the scales. None for kernel shapes that are small enough
        for all weights: up to 33,154 products a sum for int8, 16,577 for uint8.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> int8 = get_scheme("int8")
    >>> least_scale_for_sums(np.ones((33154, 1), "float32"), (-1,), int8) is None
    True
    >>> scale = least_scale_for_sums(np.ones((100000, 1), "float32"), (-1,), int8)
    >>> bool(255 * 100000 * np.round(1 / float(scale[0, 0])) < 2**30)
    True
    """
    products = _products(kernel, channel_axes)
    if sums_fit(kernel, channel_axes, scheme):
        return None
    axes = summed_axes(kernel, channel_axes)
    with float64():  # makes the sum independent of the compiler's order of summing
        sums = ops.sum(ops.abs(ops.cast(kernel, "float64")), axis=axes, keepdims=True)
        sums = ops.cast(sums, "float32")
    sums = sums if scheme.weight_per_channel else ops.max(sums)
    # Rounding changes each weight by at most half a step, and to at most twice its size.
    most = scheme.largest_sum / scheme.largest_activation
    steps = max(most - products / 2, most / 2)
    return sums * np.float32(1.000001 / steps)


def sums_fit(kernel: Any, channel_axes: tuple[int, ...], scheme: Scheme) -> bool:
    """Returns whether no sum of products exceeds the scheme's bound, whatever the weights are.

    Args:
        kernel: Tensor or variable, of which only the shape matters.
        channel_axes: The dimensions of the kernel that number its output channels.
        scheme: The scheme, for the largest integers.
    """
    return _products(kernel, channel_axes) * scheme.largest_product < scheme.largest_sum


def _products(kernel: Any, channel_axes: tuple[int, ...]) -> int:
    """Returns the number of products in a sum."""
    return math.prod(kernel.shape[axis] for axis in summed_axes(kernel, channel_axes))


def check_accumulators(
    weights: IntegerWeights,
    scales: tuple[Any, Any],
    channel_axes: tuple[int, ...],
    scheme: Scheme,
    layer: str,
) -> None:
    """Raises if kernels would overflow, or refuse the file.

    `MultiplyByQuantizedMultiplier` shifts an accumulator to the left before it multiplies if the
    multiplier is above 1. XNNPACK takes only multipliers below 2^8.

    Args:
        weights: The integers.
        scales: The scales of the input and of the output, float32 scalar tensors.
        channel_axes: The dimensions of the kernel that number its output channels.
        scheme: The scheme, for the largest input and the width of an accumulator.
        layer: Name of the layer.

    Raises:
        UnsupportedLayerError: If an accumulator may exceed 32 bits, or a scale is not finite.
    """
    kernel, scale, _, bias = (ops.convert_to_numpy(each) for each in weights)
    shift = ops.convert_to_numpy(_shift(scales[0], scale, scales[1]))
    sums = np.sum(np.abs(kernel.astype("float64")), summed_axes(kernel, channel_axes)).reshape(-1)
    left = np.maximum(shift, 0)
    largest = scheme.largest_activation * sums + np.abs(bias.astype("float64"))
    fits = np.max(largest) < 2 ** (scheme.accumulator_bits - 1)
    # Sums of 64 bits are not shifted to the left before they are multiplied.
    shifted = left if scheme.accumulator_bits <= 32 else shift
    fits = fits and np.max(largest * 2.0**shifted) < _LARGEST_SHIFTED
    if np.all(np.isfinite(scale)) and np.max(left) <= _LARGEST_SHIFT and fits:
        return
    raise UnsupportedLayerError(
        "The kernel or the bias is too large for the range of the output: no integer kernel can "
        "scale their sums in 32 bits.",
        layer=layer,
        received=f"sums in steps of up to 2^{int(np.max(shift))} of the output's steps",
        expected="weights and biases of about the size of the output",
        fix="Calibrate on representative data, or train more. `bias_pressure` shows large biases.",
    )


def channel_shape(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape in which one value for each output channel broadcasts against a kernel."""
    summed = summed_axes(kernel, channel_axes)
    sizes = tuple(kernel.shape)
    sizes = ops.shape(kernel) if None in sizes else sizes
    return tuple(1 if axis in summed else size for axis, size in enumerate(sizes))


def summed_axes(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the dimensions of a kernel over which one output channel is summed."""
    rank = len(kernel.shape)
    return tuple(axis for axis in range(rank) if axis - rank not in channel_axes)


def scaled_axes(kernel, channel_axes: tuple[int, ...], scheme: Scheme) -> tuple[int, ...] | None:
    """Returns the dimensions of a kernel that one weight scale spans, or None for all."""
    return summed_axes(kernel, channel_axes) if scheme.weight_per_channel else None


@compiled
def _shift(input_scale, weight_scale, output_scale):
    """Returns the power of two in the multiplier of each channel's sums."""
    return conv_multiplier(input_scale, weight_scale, output_scale)[1]


def _round(x):
    return ops.cast(ops.round(x), "int32")
