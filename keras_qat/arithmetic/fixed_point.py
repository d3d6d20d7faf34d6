"""Gemmlowp's fixed-point primitives.

A real multiplier is `multiplier / 2**31 * 2**shift`. Products have 64 bits, as in the C++ code.
JAX has int64 within `backend.float64()` only.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_int32, exponent, power_of_two, scale_ratio
from keras_qat.backend import float64, part

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1


@part
def quantize_multiplier(real: Any) -> tuple[Any, Any]:
    """Writes a real multiplier as a 31-bit integer and a power of two.

    Source: `QuantizeMultiplier` in TFLite's `kernels/internal/quantization_util.cc`.

    Args:
        real: float64 tensor of any shape, not negative, below 2**31. Make the tensor, and call
            this function, within `backend.float64()`.

    Returns:
        `(multiplier, shift)`, int32 tensors of the same shape: `multiplier` from 2**30 to
        2**31 - 1, `shift` positive to the left. Both are 0 for 0 and for numbers that are too
        small (a shift below -31).

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
    carried = multiplier < 0  # 2**31 after rounding up, which wraps
    multiplier = ops.where(carried, as_int32(2**30), multiplier)
    shift = shift + ops.cast(carried, "int32")
    kept = ops.cast(shift >= -31, "int32")
    return multiplier * kept, shift * kept


def conv_multiplier(input_scale: Any, weight_scale: Any, output_scale: Any) -> tuple[Any, Any]:
    """Returns the multiplier that rescales an int32 accumulator to the output's scale.

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
        int32 tensor. It overflows only if both are -2**31, and then saturates to 2**31 - 1.

    Example:
    >>> srdhm(ops.array([100, -3], "int32"), ops.array(2**30, "int32")).numpy()
    array([50, -1], dtype=int32)
    """
    with float64():
        high = ops.minimum(_doubling_high_mul(a, b), _as_int64(INT32_MAX))
        return ops.cast(high, "int32")


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
    with float64():
        return ops.cast(_rounding_shift(_as_int64(x), _as_int64(n)), "int32")


@part
def multiply_by_quantized_multiplier(x: Any, multiplier: Any, shift: Any) -> Any:
    """Multiplies by `multiplier / 2**31 * 2**shift` with gemmlowp's two roundings.

    Source: `MultiplyByQuantizedMultiplier` (double rounding) in TFLite's
    `kernels/internal/common.h`.

    Args:
        x: int32 tensor. As in C++, `x * 2**max(shift, 0)` wraps if it does not fit 32 bits.
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
    with float64():
        high = _doubling_high_mul(shifted, multiplier)
        return ops.cast(_rounding_shift(high, _as_int64(ops.maximum(-shift, 0))), "int32")


def _doubling_high_mul(a: Any, b: Any) -> Any:
    """Computes `srdhm` as int64, without the saturation, which only -2**31 squared needs."""
    return ops.right_shift(_as_int64(a) * _as_int64(b) + 2**30, _as_int64(31))


def _rounding_shift(x: Any, n: Any) -> Any:
    """Divides int64 by 2**n: adds a half, and 1 less for a negative number, and then floors."""
    half = ops.right_shift(ops.left_shift(_as_int64(1), n), _as_int64(1))
    is_divided = ops.minimum(n, _as_int64(1))
    sign = ops.right_shift(x, _as_int64(63))
    return ops.right_shift(x + half + sign * is_divided, n)


def _as_int64(x: Any) -> Any:
    return ops.cast(as_int32(x), "int64")
