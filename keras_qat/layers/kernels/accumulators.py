"""Requantization of accumulators to centered outputs, as one compiled function."""

from __future__ import annotations

from keras import ops

from keras_qat.arithmetic.accumulate import whole
from keras_qat.arithmetic.int16.requantize import wide_sum
from keras_qat.backend import compiled, float64
from keras_qat.layers.core.fused import activation_limits


@compiled
def requantize_centered(
    accumulators,
    bias,
    input_scale,
    weight_scale,
    scale,
    zero_point,
    *,
    rule,
    activation,
    scheme,
):
    """Adds the bias and requantizes.

    Args:
        accumulators: Output of `arithmetic.accumulate`, channels last.
        bias: int32, one for each channel.
        input_scale: float32 scalar.
        weight_scale: float32, one for each channel, or a scalar.
        scale: float32 scalar, scale of the output.
        zero_point: int32 scalar, zero point of the output.
        rule: The rule of the kernels, one of `arithmetic.rules`.
        activation: Name of the fused activation.
        scheme: The scheme.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    limits = activation_limits(activation, scale, zero_point, scheme)
    scales = input_scale, weight_scale, scale
    q = rule(whole(accumulators) + bias, *scales, zero_point, *limits)
    return ops.cast(q - zero_point, "float32")


@compiled
def requantize_wide_centered(
    high,
    low,
    bias,
    input_scale,
    weight_scale,
    scale,
    zero_point,
    *,
    rule,
    activation,
    scheme,
):
    """Adds the sums over both bytes of 16-bit activations and the bias, and requantizes.

    Args:
        high: Output of `arithmetic.accumulate` for the high bytes, channels last.
        low: The same for the low bytes.
        bias: int32, one for each channel.
        input_scale: float32 scalar.
        weight_scale: float32, one for each channel, or a scalar.
        scale: float32 scalar, scale of the output.
        zero_point: int32 scalar, zero point of the output, 0.
        rule: The rule of the kernels, one of `arithmetic.rules`.
        activation: Name of the fused activation.
        scheme: The scheme.

    Returns:
        float32 whole numbers.
    """
    limits = activation_limits(activation, scale, zero_point, scheme)
    with float64():
        total = wide_sum(whole(high), whole(low), bias)
        q = rule(total, input_scale, weight_scale, scale, zero_point, *limits)
    return ops.cast(q, "float32")
