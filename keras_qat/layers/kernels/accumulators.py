"""Requantization of accumulators to centered outputs, each rule as one compiled function."""

from __future__ import annotations

from keras import ops

from keras_qat.arithmetic.accumulate import whole
from keras_qat.arithmetic.requantize import requantize, requantize_float64
from keras_qat.backend import compiled
from keras_qat.layers.core.fused import activation_limits


@compiled
def requantize_centered(
    accumulators, bias, multiplier, shift, scale, zero_point, *, activation, scheme
):
    """Adds the bias and requantizes by the double rounding of most kernels.

    Args:
        accumulators: Output of `arithmetic.accumulate`, channels last.
        bias: int32, one for each channel.
        multiplier: int32 fixed-point multiplier, one for each channel.
        shift: int32, the exponent of the multiplier.
        scale: float32 scalar, scale of the output.
        zero_point: int32 scalar, zero point of the output.
        activation: Name of the fused activation.
        scheme: The scheme.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    limits = activation_limits(activation, scale, zero_point, scheme)
    q = requantize(whole(accumulators) + bias, multiplier, shift, zero_point, *limits)
    return ops.cast(q - zero_point, "float32")


@compiled
def requantize_dense(
    accumulators, bias, input_scale, weight_scale, scale, zero_point, *, activation, scheme
):
    """Adds the bias and requantizes in double precision, as FULLY_CONNECTED does.

    Args:
        accumulators: Output of `arithmetic.accumulate`, channels last.
        bias: int32, one for each channel.
        input_scale: float32 scalar.
        weight_scale: float32, one for each channel.
        scale: float32 scalar, scale of the output.
        zero_point: int32 scalar, zero point of the output.
        activation: Name of the fused activation.
        scheme: The scheme.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    limits = activation_limits(activation, scale, zero_point, scheme)
    scales = input_scale, weight_scale, scale
    q = requantize_float64(whole(accumulators) + bias, *scales, zero_point, *limits)
    return ops.cast(q - zero_point, "float32")
