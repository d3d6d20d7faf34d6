"""Gemmlowp's fixed-point primitives, in int32 alone.

A real multiplier is `multiplier / 2**31 * 2**shift`. The 64-bit product that the C++ code
takes is made from 16-bit halves, because JAX has no int64 by default.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_int32, exponent, power_of_two, scale_ratio
from keras_qat.backend import float64

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1


def quantize_multiplier(real: Any) -> tuple[Any, Any]:
    """Writes a real multiplier as a 31-bit integer and a power of two.

    Source: `QuantizeMultiplier` in TFLite's `kernels/internal/quantization_util.cc`.

    Args:
        real: float64 tensor of any shape, not negative, below 2**31; made within
            `backend.float64()`, within which this must be called too.

    Returns:
        `(multiplier, shift)`, int32 tensors of the same shape: `multiplier` from 2**30 to
        2**31 - 1, `shift` positive to the left. Both are 0 for 0 and for what is too small
        (a shift below -31).

    Example:
    >>> m, shift = quantize_multiplier(ops.cast([0.75, 3.0, 0.0], "float64"))
    >>> m.numpy() / 2**31, shift.numpy()
    (array([0.75, 0.75, 0.  ]), array([0, 2, 0], dtype=int32))
    """
    shift = exponent(real)
    fraction = real * power_of_two(31 - shift)
    whole = ops.cast(fraction, "int32")
    half_or_more = fraction - ops.cast(whole, "float64") >= 0.5
    multiplier = whole + ops.cast(half_or_more, "int32")
    carried = multiplier < 0  # rounded up to 2**31, which wraps
    multiplier = ops.where(carried, as_int32(2**30), multiplier)
    shift = shift + ops.cast(carried, "int32")
    kept = ops.cast(shift >= -31, "int32")
    return multiplier * kept, shift * kept


def conv_multiplier(input_scale: Any, weight_scale: Any, output_scale: Any) -> tuple[Any, Any]:
    """Returns the multiplier that takes an int32 accumulator to the output's scale.

    Source: `PopulateConvolutionQuantizationParams` in TFLite's `kernels/kernel_util.cc`.

    Args:
        input_scale: float32 scalar.
        weight_scale: float32 scalar, or `(channels,)` for per-channel weights.
        output_scale: float32 scalar.

    Returns:
        `(multiplier, shift)`, int32 tensors with the shape of `weight_scale`.

    Example:
    >>> m, shift = conv_multiplier(0.5, [0.25, 0.5], 0.5)
    >>> m.numpy() / 2**31, shift.numpy()
    (array([0.5, 0.5]), array([-1,  0], dtype=int32))
    """
    with float64():
        return quantize_multiplier(scale_ratio(input_scale, weight_scale, output_scale))


def srdhm(a: Any, b: Any) -> Any:
    """Returns the high half of twice the product: `floor((a * b + 2**30) / 2**31)`.

    Source: `SaturatingRoundingDoublingHighMul` in gemmlowp's `fixedpoint/fixedpoint.h`.

    Args:
        a: int32 tensor.
        b: int32 tensor that broadcasts with `a`.

    Returns:
        int32 tensor. The one overflow, both being -2**31, saturates to 2**31 - 1.

    Example:
    >>> srdhm(ops.array([100, -3], "int32"), ops.array(2**30, "int32")).numpy()
    array([50, -1], dtype=int32)
    """
    overflow = ops.logical_and(ops.equal(a, b), ops.equal(a, as_int32(INT32_MIN)))
    return ops.where(overflow, as_int32(INT32_MAX), _doubling_high_mul(a, b))


def rounding_divide_by_pot(x: Any, n: Any) -> Any:
    """Divides by a power of two, rounding to nearest with ties away from zero.

    Source: `RoundingDivideByPOT` in gemmlowp's `fixedpoint/fixedpoint.h`.

    Args:
        x: int32 tensor.
        n: int32 tensor that broadcasts with `x`, from 0 to 31.

    Returns:
        int32 tensor, `x / 2**n` rounded.

    Example:
    >>> rounding_divide_by_pot(ops.array([5, -5, -7], "int32"), 1).numpy()
    array([ 3, -3, -4], dtype=int32)
    """
    n = as_int32(n)
    mask = ops.bitwise_not(ops.left_shift(as_int32(-1), n))
    threshold = ops.cast(x < 0, "int32") + ops.right_shift(mask, 1)
    up = ops.cast(ops.bitwise_and(x, mask) > threshold, "int32")
    return ops.right_shift(x, n) + up


def multiply_by_quantized_multiplier(x: Any, multiplier: Any, shift: Any) -> Any:
    """Multiplies by `multiplier / 2**31 * 2**shift` with gemmlowp's two roundings.

    Source: `MultiplyByQuantizedMultiplier` (double rounding) in TFLite's
    `kernels/internal/common.h`.

    Args:
        x: int32 tensor. As in C++, `x * 2**max(shift, 0)` should fit 32 bits, and wraps.
        multiplier: int32 tensor that broadcasts with `x`, not negative.
        shift: int32 tensor like `multiplier`, from -31 to 31.

    Returns:
        int32 tensor.

    Example:
    >>> multiply_by_quantized_multiplier(ops.array([10, -11], "int32"), 2**30, -1).numpy()
    array([ 3, -3], dtype=int32)
    """
    shift = as_int32(shift)
    shifted = ops.left_shift(as_int32(x), ops.maximum(shift, 0))
    high = _doubling_high_mul(shifted, as_int32(multiplier))
    return rounding_divide_by_pot(high, ops.maximum(-shift, 0))


def _doubling_high_mul(a: Any, b: Any) -> Any:
    """`srdhm` without its saturation, which only -2**31 squared needs.

    With `a = high * 2**16 + low` and `low` signed, no sum of two products exceeds 32 bits.
    """
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    middle = a_high * b_low + a_low * b_high + ops.right_shift(a_low * b_low, 16)
    # (middle + 2**14) >> 15, written so that the sum cannot overflow
    carry = ops.right_shift(ops.right_shift(middle, 14) + 1, 1)
    return a_high * b_high * 2 + carry


def _halves(x: Any) -> tuple[Any, Any]:
    """Splits int32 into a high part and a signed low half: `x = high * 2**16 + low`."""
    high = ops.right_shift(ops.right_shift(x, 15) + 1, 1)
    low = ops.bitwise_xor(ops.bitwise_and(x, as_int32(0xFFFF)), as_int32(0x8000)) - 0x8000
    return high, low
