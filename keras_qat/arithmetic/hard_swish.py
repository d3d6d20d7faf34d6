"""The fixed-point rule of HARD_SWISH."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32
from keras_qat.arithmetic.fixed_point import quantize_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import compiled, float64

# The kernel has no left shift: the input's scale must be less than this times the output's scale.
LARGEST_SCALE_RATIO = 128.0

_FRACTION_BITS = 7  # additional fraction bits of both rescaled inputs
_THREE = 3.0 / 2**15  # the scale at which 3.0 is just beyond int16
_INT16_MAX = 2**15 - 1


@compiled
def hard_swish_table(
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    *,
    low: int,
    high: int,
    rounds_up: bool = False,
) -> Any:
    """Returns the output integer of HARD_SWISH for each input integer from low to high.

    Source: TFLite's `kernels/internal/reference/hard_swish.h`, multipliers from
    `HardSwishPrepare` in `kernels/activations.cc`. It computes in int16. On ARM64 LiteRT's default
    kernel is that of `kernels/internal/optimized/optimized_ops.h`, whose shifts round a half up. It
    takes eight values at once, and leaves the last values of a tensor to the reference kernel if
    their number is not a multiple of eight.

    Args:
        input_scale: float32 scalar, less than `LARGEST_SCALE_RATIO` times the output's.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: The least integer of the type, input and output.
        high: The greatest integer of the type.
        rounds_up: Whether to compute as the default kernel on ARM64 does.

    Returns:
        int32 tensor of shape (high - low + 1,).

    Example:
    >>> hard_swish_table(0.5, 0, 0.25, 0, low=-128, high=127).numpy()[126:131]
    array([-1, -1,  0,  1,  3], dtype=int32)
    """
    with float64():
        fine = as_float64(input_scale) * 2.0**-_FRACTION_BITS
        output_factor, output_exponent = _int16_multiplier(fine / as_float64(output_scale))
        gate_factor, gate_exponent = _int16_multiplier(fine / _THREE)
    integers = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32"))
    x = (integers - as_int32(input_zero_point)) * 2**_FRACTION_BITS
    divide = _shift_half_up if rounds_up else _divide_by_pot
    gate = ops.right_shift(_gate(x, gate_factor, gate_exponent, divide) + 2**15, 1)
    product = gate * _rounding_doubling_high_mul(x, output_factor)
    quotient = ops.right_shift(product, 15)
    if not rounds_up:  # division in C++ rounds toward zero
        magnitude = ops.right_shift(ops.absolute(product), 15)
        quotient = ops.where(product < 0, -magnitude, magnitude)
    return clip(divide(quotient, -output_exponent) + as_int32(output_zero_point), low, high)


def _gate(x: Any, factor: Any, exponent: Any, divide: Callable[[Any, Any], Any]) -> Any:
    """Returns `x` on the scale of -3 to 3, saturated. The last bit of a left shift comes last."""
    is_left = ops.cast(exponent > 0, "int32")
    scaled = _rounding_doubling_high_mul(
        _saturating_left_shift(x, ops.maximum(exponent - 1, 0)), factor
    )
    return divide(_saturating_left_shift(scaled, is_left), -exponent)


def _int16_multiplier(real: Any) -> tuple[Any, Any]:
    """Applies `QuantizeMultiplier` to a float32, then `DownScaleInt32ToInt16Multiplier`."""
    in_float32 = ops.cast(ops.cast(real, "float32"), "float64")
    multiplier, exponent = quantize_multiplier(in_float32)
    rounded = ops.right_shift(ops.minimum(multiplier, 2**31 - 1 - 2**15) + 2**15, 16)
    return ops.minimum(rounded, _INT16_MAX), exponent


def _rounding_doubling_high_mul(a: Any, b: Any) -> Any:
    """Computes `SaturatingRoundingDoublingHighMul` of int16 numbers, `b` not negative."""
    return ops.right_shift(a * b + 2**14, 15)


def _saturating_left_shift(x: Any, count: Any) -> Any:
    # 15 bits are enough to saturate every number but 0, and do not overflow 32 bits.
    shifted = ops.left_shift(x, ops.minimum(count, 15))
    return clip(shifted, -_INT16_MAX - 1, _INT16_MAX)


def _divide_by_pot(x: Any, count: Any) -> Any:
    """Computes `RoundingDivideByPOT` of int16 numbers, whose mask has 16 bits at most."""
    count = ops.maximum(count, 0)
    narrow = ops.left_shift(ops.ones_like(count), ops.minimum(count, 15)) - 1
    mask = ops.where(count > 15, -1, narrow)
    threshold = ops.right_shift(mask, 1) + ops.cast(x < 0, "int32")
    up = ops.cast(ops.bitwise_and(x, mask) > threshold, "int32")
    return ops.right_shift(x, count) + up


def _shift_half_up(x: Any, count: Any) -> Any:
    """Computes `vrshlq_s16` of int16 numbers with a negative shift."""
    halves = ops.right_shift(x, ops.maximum(count - 1, 0))
    return ops.where(count > 0, ops.right_shift(halves + 1, 1), x)
