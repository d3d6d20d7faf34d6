"""Requantization of accumulators of 64 bits."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64

# Far beyond 16 bits, and inside 32 bits.
_LARGEST = 2**30


def wide_sum(high: Any, low: Any, bias: Any) -> Any:
    """Returns the accumulator of sums over the two bytes of each activation.

    Args:
        high: int32 tensor `(..., channels)`, the sum over the high bytes.
        low: int32 tensor, the sum over the low bytes.
        bias: int32 tensor `(channels,)`.

    Returns:
        int64 tensor. Call this function within `backend.float64()`.

    Example:
    >>> int(wide_sum(ops.array(2**30, "int32"), ops.array(1, "int32"), ops.array(2, "int32")))
    274877906947
    """
    return _int64(high) * 256 + _int64(low) + _int64(bias)


def requantize_wide(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes a convolution's accumulators of 64 bits, with a multiplier of 15 bits.

    Source: `MultiplyByQuantizedMultiplier` of an int64 in TFLite's `kernels/internal/common.cc`.

    Args:
        acc: int64 tensor `(..., channels)`, bias included. Call this function within
            `backend.float64()`.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's, which is 0.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.cast([3, -3, 4], "int64")
    >>> requantize_wide(acc, 0.5, 1.0, 1.0, 0, -32768, 32767).numpy()
    array([ 2, -1,  2], dtype=int32)
    """
    del zero_point
    multiplier, shift = conv_multiplier(input_scale, weight_scale, output_scale)
    rounded = ops.right_shift(ops.minimum(multiplier, 2**31 - 1 - 2**15) + 2**15, 16)
    reduced = ops.where(multiplier < 0x7FFF0000, rounded, 0x7FFF)
    with float64():
        right = 15 - _int64(shift)
        half = ops.left_shift(_int64(1), right - 1)
        scaled = ops.right_shift(_int64(acc) * _int64(reduced) + half, right)
        limited = ops.where(scaled > _LARGEST, _int64(_LARGEST), scaled)
        limited = ops.where(scaled < -_LARGEST, _int64(-_LARGEST), limited)
        return clip(ops.cast(limited, "int32"), low, high)


def _int64(x: Any) -> Any:
    return ops.cast(ops.convert_to_tensor(x), "int64")
