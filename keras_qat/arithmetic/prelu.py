"""The integer rules of a ReLU with a slope for negative values: PRELU and LEAKY_RELU."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32
from keras_qat.arithmetic.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64


def prelu(
    q: Any,
    input_scale: Any,
    input_zero_point: Any,
    alpha: Any,
    alpha_scale: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Returns `x` where it is not negative, `alpha * x` elsewhere.

    Source: TFLite's `kernels/internal/reference/prelu.h`. `PreluPrepare` of
    `kernels/activations.cc` computes both multipliers from float32 quotients.

    Args:
        q: int32 tensor.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        alpha: int32 tensor that broadcasts to `q`, with zero point 0.
        alpha_scale: float32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> q = ops.array([10, -8], "int32")
    >>> prelu(q, 1.0, 0, 64, 0.0078125, 1.0, 0, -128, 127).numpy()
    array([10, -4], dtype=int32)
    """
    with float64():
        positive = quantize_multiplier(_quotient(as_float64(input_scale), output_scale))
        # The product of two float32 numbers is exact in double, so it is rounded once, as in C++.
        product = ops.cast(as_float64(input_scale) * as_float64(alpha_scale), "float32")
        negative = quantize_multiplier(_quotient(ops.cast(product, "float64"), output_scale))
    centered = as_int32(q) - as_int32(input_zero_point)
    scaled = ops.where(
        centered >= 0,
        multiply_by_quantized_multiplier(centered, *positive),
        multiply_by_quantized_multiplier(centered * as_int32(alpha), *negative),
    )
    return clip(scaled + as_int32(output_zero_point), low, high)


def leaky_relu(
    q: Any,
    input_scale: Any,
    input_zero_point: Any,
    slope: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Returns `x` where it is not negative, `slope * x` elsewhere, as LEAKY_RELU does.

    Source: `QuantizeLeakyRelu` in TFLite's `kernels/internal/reference/leaky_relu.h`. It multiplies
    by the slope as PRELU multiplies by an alpha of 1 whose scale is the slope.

    Args:
        q: int32 tensor.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        slope: float32 scalar, not negative.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> leaky_relu(ops.array([10, -8], "int32"), 1.0, 0, 0.5, 1.0, 0, -128, 127).numpy()
    array([10, -4], dtype=int32)
    """
    grids = input_scale, input_zero_point, 1, slope, output_scale, output_zero_point
    return prelu(q, *grids, low, high)


def _quotient(a: Any, b: Any) -> Any:
    """Returns the float32 quotient as float64. A double's last bits may depend on the compiler."""
    return ops.cast(ops.cast(a / as_float64(b), "float32"), "float64")
