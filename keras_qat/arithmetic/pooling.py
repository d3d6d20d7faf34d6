"""Integer averages: AVERAGE_POOL_2D and MEAN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32, quotient
from keras_qat.arithmetic.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64


def average(sum_q: Any, count: Any) -> Any:
    """Divides sums by counts, rounding to nearest with ties away from zero.

    Source: `AveragePool` in TFLite's `kernels/internal/reference/integer_ops/pooling.h`. The
    scale does not change, so the sum includes the zero points.

    Args:
        sum_q: int32 tensor, the sum of a window's integers.
        count: int32 tensor that broadcasts with `sum_q`: the number of integers, at least 1.

    Returns:
        int32 tensor, `(sum_q +- count / 2) / count` truncated.

    Example:
    >>> average(ops.array([5, -5, -6], "int32"), 4).numpy()
    array([ 1, -1, -2], dtype=int32)
    """
    sum_q, count = as_int32(sum_q), as_int32(count)
    size = ops.floor_divide(ops.abs(sum_q) + ops.right_shift(count, 1), count)
    return ops.where(sum_q < 0, -size, size)


def window_sums(x: Any, starts: Sequence[int], stops: Sequence[int], axis: int) -> Any:
    """Sums integers over windows of any sizes along one axis.

    Args:
        x: int32 tensor. The sums of its whole axis must fit in 32 bits.
        starts: Start of each window.
        stops: End of each window, the position after its last value.
        axis: The axis.

    Returns:
        int32 tensor with one value for each window along the axis.

    Example:
    >>> window_sums(ops.array([1, 2, 4, 8], "int32"), [0, 1], [3, 4], 0).numpy()
    array([ 7, 14], dtype=int32)
    """
    sums = as_int32(ops.cumsum(as_int32(x), axis=axis))
    pads = [(1, 0) if each == axis else (0, 0) for each in range(len(sums.shape))]
    sums = ops.pad(sums, pads)
    upper = ops.take(sums, np.array(stops, "int32"), axis=axis)
    return upper - ops.take(sums, np.array(starts, "int32"), axis=axis)


def mean(
    sum_q: Any,
    n: int,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Rescales the sum over reduced axes to their mean in the output's scale.

    Source: `QuantizedMeanOrSum` in TFLite's `kernels/internal/reference/reduce.h`. The
    division by `n` is folded into the multiplier.

    Args:
        sum_q: int32 tensor, the sum of `n` integers.
        n: Number of integers in each sum, a Python integer.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `sum_q`.

    Example:
    >>> mean(ops.array([30, -45], "int32"), 3, 0.5, 0, 0.5, 1, -128, 127).numpy()
    array([ 11, -14], dtype=int32)
    """
    scales = (input_scale, input_zero_point, output_scale, output_zero_point)
    return _mean(sum_q, *scales, low, high, n=n)


def _mean(
    sum_q: Any,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
    *,
    n: int,
) -> Any:
    with float64():
        ratio = quotient(as_float64(input_scale), as_float64(output_scale))
        multiplier, shift = quantize_multiplier(ratio)
    multiplier, shift = _divided(multiplier, shift, n)
    centred = as_int32(sum_q) - as_int32(input_zero_point) * n
    scaled = multiply_by_quantized_multiplier(centred, multiplier, shift)
    return clip(scaled + as_int32(output_zero_point), low, high)


def _divided(multiplier: Any, shift: Any, n: int) -> tuple[Any, Any]:
    """Returns `floor(multiplier * 2**k / n)` and `shift - k`, `2**k` the power of two below `n`.

    Long division of one bit at a time needs no 64-bit integers. As in the kernel, it stops early
    if the shift would fall below -31.
    """
    bits = ops.minimum(as_int32(n.bit_length() - 1), shift + 31)
    whole = ops.floor_divide(multiplier, n)
    rest = multiplier - whole * n
    for bit in range(n.bit_length() - 1):
        going = bit < bits
        fits = rest * 2 >= n
        digit = ops.cast(fits, "int32")
        whole = ops.where(going, whole * 2 + digit, whole)
        rest = ops.where(going, rest * 2 - digit * n, rest)
    return whole, shift - bits
