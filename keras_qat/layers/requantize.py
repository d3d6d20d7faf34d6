"""From accumulators to centered outputs, each rule as one compiled function."""

from __future__ import annotations

from keras import ops

from keras_qat.arithmetic.requantize import requantize, requantize_float64
from keras_qat.backend import compiled


@compiled
def requantize_centered(accumulators, bias, multiplier, shift, zero_point, low, high):
    """Adds the bias and requantizes by the double rounding of most kernels.

    Args:
        accumulators: int32, channels last.
        bias: int32, one for each channel.
        multiplier: int32 fixed-point multiplier, one for each channel.
        shift: int32, its exponent.
        zero_point: int32 scalar, zero point of the output.
        low: int32 scalar, smallest output.
        high: int32 scalar, largest output.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    total = accumulators + bias
    q = requantize(total, multiplier, shift, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")


@compiled
def requantize_dense(
    accumulators, bias, input_scale, weight_scale, output_scale, zero_point, low, high
):
    """Adds the bias and requantizes in double precision, as FULLY_CONNECTED does.

    Args:
        accumulators: int32, channels last.
        bias: int32, one for each channel.
        input_scale: float32 scalar.
        weight_scale: float32, one for each channel.
        output_scale: float32 scalar.
        zero_point: int32 scalar, zero point of the output.
        low: int32 scalar, smallest output.
        high: int32 scalar, largest output.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    total = accumulators + bias
    q = requantize_float64(total, input_scale, weight_scale, output_scale, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")
