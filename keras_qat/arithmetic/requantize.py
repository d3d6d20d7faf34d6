"""Converts accumulators, floats and integers of other scales to the integers of an output."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float64,
    as_int32,
    quotient,
    round_half_away,
    scale_ratio,
)
from keras_qat.arithmetic.fixed_point import (
    conv_multiplier,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from keras_qat.backend import compiled, float64


def clip(q: Any, low: Any, high: Any) -> Any:
    """Limits integers to a range, which includes the fused activation.

    Args:
        q: int32 tensor.
        low: int32 scalar.
        high: int32 scalar.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> clip(ops.array([-200, 5], "int32"), -128, 127).numpy()
    array([-128,    5], dtype=int32)
    """
    return ops.minimum(ops.maximum(q, as_int32(low)), as_int32(high))


def requantize(acc: Any, multiplier: Any, shift: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """Requantizes accumulators to the output's scale, for convolutions and similar operators.

    Source: TFLite's `kernels/internal/reference/integer_ops/conv.h`, `depthwise_conv.h`.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        multiplier: int32 scalar or `(channels,)`, from `fixed_point.conv_multiplier`.
        shift: int32 tensor like `multiplier`.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> requantize(ops.array([100, -9000], "int32"), 2**30, -2, 3, -128, 127).numpy()
    array([  16, -128], dtype=int32)
    """
    scaled = multiply_by_quantized_multiplier(acc, multiplier, shift)
    return clip(scaled + as_int32(zero_point), low, high)


def requantize_fixed_point(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes a convolution's accumulators to the output's scale, with two roundings.

    Source: `PopulateConvolutionQuantizationParams` in TFLite's `kernels/kernel_util.cc` for the
    multiplier, and `requantize`.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([3, -3, 4], "int32")
    >>> requantize_fixed_point(acc, 0.5, 1.0, 1.0, 0, -128, 127).numpy()
    array([ 2, -1,  2], dtype=int32)
    """
    multiplier, shift = conv_multiplier(input_scale, weight_scale, output_scale)
    return requantize(acc, multiplier, shift, zero_point, low, high)


def requantize_float64(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes a FULLY_CONNECTED accumulator to the output's scale, with one double rounding.

    Source: TFLite's `kernels/internal/reference/integer_ops/fully_connected.h`, as measured:
    `round(acc * (input_scale * weight_scale / output_scale))` in double, ties away from zero.

    Args:
        acc: int32 tensor `(..., channels)`, bias included; or int64 tensor, for 16-bit activations.
            With int64 call this function within `backend.float64()`.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([3, -3, 4], "int32")
    >>> requantize_float64(acc, 0.5, 1.0, 1.0, 0, -128, 127).numpy()
    array([ 2, -2,  2], dtype=int32)
    """
    with float64():
        ratio = scale_ratio(input_scale, weight_scale, output_scale)
        scaled = round_half_away(ops.cast(acc, "float64") * ratio)
    return clip(scaled + as_int32(zero_point), low, high)


@compiled
def quantize(x: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """Quantizes floats to integers, as QUANTIZE from float32 to int8 does.

    Source: `AffineQuantize` in TFLite's `kernels/internal/reference/quantize.h`.

    Args:
        x: float32 tensor.
        scale: float32 scalar.
        zero_point: int32 scalar.
        low: int32 scalar, the least integer of the type.
        high: int32 scalar, the greatest integer of the type.

    Returns:
        int32 tensor like `x`. Values beyond the range of int32 saturate (in C++ the result is
        undefined).

    Example:
    >>> quantize(ops.array([0.25, -0.25, 1000.0]), 0.5, -1, -128, 127).numpy()
    array([  0,  -2, 127], dtype=int32)
    """
    with float64():
        # A double quotient of two floats rounds to the float quotient, even if its last bits
        # are wrong, as with compilers that multiply by a reciprocal.
        steps = ops.cast(as_float64(x) / as_float64(scale), "float32")
    return clip(round_half_away(steps) + as_int32(zero_point), low, high)


@compiled
def rescale(
    q: Any,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes integers to another scale and zero point, as QUANTIZE int8 to int8 does.

    Source: `Requantize` in TFLite's `kernels/internal/reference/requantize.h`.

    Args:
        q: int32 tensor.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> rescale(ops.array([4, 5], "int32"), 0.5, 0, 1.0, -1, -128, 127).numpy()
    array([1, 2], dtype=int32)
    """
    with float64():
        ratio = quotient(as_float64(input_scale), as_float64(output_scale))
        multiplier, shift = quantize_multiplier(ratio)
    centred = as_int32(q) - as_int32(input_zero_point)
    scaled = multiply_by_quantized_multiplier(centred, multiplier, shift)
    return clip(scaled + as_int32(output_zero_point), low, high)
