"""Requantization of accumulators by instructions that round a half up."""

from __future__ import annotations

import functools
import operator
from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_int32
from keras_qat.arithmetic.fixed_point import conv_multiplier, srdhm
from keras_qat.arithmetic.multiply import product_multiplier
from keras_qat.arithmetic.requantize import clip

_BLOCK = 8  # channels of one step of the kernel


def requantize_half_up(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes accumulators of a matrix product with weights of 4 bits to the output's scale.

    Source: `ApplyMultiplier` of the library Ruy. XNNPACK does not take CONV_2D with such weights,
    nor FULLY_CONNECTED with an odd number of inputs.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([[-6, 6]], "int32")
    >>> requantize_half_up(acc, 0.25, 1.0, 1.0, 0, -128, 127).numpy()
    array([[-1,  2]], dtype=int32)
    """
    scaling = conv_multiplier(input_scale, weight_scale, output_scale)
    rounded = _multiply(acc, *scaling, as_int32(0))
    return clip(rounded + as_int32(zero_point), low, high)


def requantize_transpose_conv(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes accumulators of a TRANSPOSE_CONV of int8 to the output's scale.

    Source: `Quantize` in TFLite's `kernels/internal/optimized/optimized_ops.h`. The kernel takes
    eight channels at once and rounds a half up. It rounds a half away from zero in the channels
    that remain. DEPTHWISE_CONV_2D with weights of 4 bits does the same.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([[-6] * 9], "int32")
    >>> requantize_transpose_conv(acc, 0.25, 1.0, 1.0, 0, -128, 127).numpy()
    array([[-1, -1, -1, -1, -1, -1, -1, -1, -2]], dtype=int32)
    """
    scaling = conv_multiplier(input_scale, weight_scale, output_scale)
    channels = ops.shape(acc)[-1]
    remains = ops.arange(channels, dtype="int32") >= channels - channels % _BLOCK
    rounded = _multiply(acc, *scaling, ops.cast(remains, "int32"))
    return clip(rounded + as_int32(zero_point), low, high)


def requantize_transpose_conv_uint8(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes accumulators of a TRANSPOSE_CONV of uint8 to the output's scale.

    Source: `Quantize` in TFLite's `kernels/internal/optimized/optimized_ops.h`. The kernel takes 16
    values of the batch at once and rounds a half up. It rounds a half away from zero in the last
    values of the batch, if their number is not a multiple of 16.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([[-6] * 17], "int32")
    >>> requantize_transpose_conv_uint8(acc, 0.25, 1.0, 1.0, 9, 0, 255).numpy()[0, -2:]
    array([8, 7], dtype=int32)
    """
    scaling = product_multiplier(input_scale, weight_scale, output_scale)
    acc = as_int32(acc)
    size = functools.reduce(operator.mul, ops.shape(acc))
    remains = ops.arange(size, dtype="int32") >= size - size % (2 * _BLOCK)
    is_away = ops.reshape(ops.cast(remains, "int32"), ops.shape(acc))
    rounded = _multiply(acc, *scaling, is_away)
    return clip(rounded + as_int32(zero_point), low, high)


def _multiply(acc: Any, multiplier: Any, shift: Any, is_away: Any) -> Any:
    """Multiplies by `multiplier / 2**31 * 2**shift`.

    The last rounding is half up where `is_away` is 0, and half away from zero where it is 1. The
    latter is half up of a negative number less one.
    """
    right = ops.maximum(-shift, 0)
    scaled = srdhm(ops.left_shift(as_int32(acc), ops.maximum(shift, 0)), multiplier)
    scaled = scaled + ops.right_shift(scaled, 31) * (is_away * ops.minimum(right, 1))
    halves = ops.right_shift(scaled, ops.maximum(right - 1, 0))
    return ops.where(right > 0, ops.right_shift(halves + 1, 1), scaled)
