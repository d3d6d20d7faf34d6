"""Integer products of two tensors, element by element and as matrices."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float32,
    as_float64,
    as_int32,
    quotient,
    scale_ratio,
)
from keras_qat.arithmetic.fixed_point import quantize_multiplier
from keras_qat.arithmetic.requantize import requantize
from keras_qat.backend import float64


def multiply(
    qa: Any,
    sa: Any,
    za: Any,
    qb: Any,
    sb: Any,
    zb: Any,
    sy: Any,
    zy: Any,
    low: Any,
    high: Any,
    *,
    in_double: bool = False,
) -> Any:
    """Multiplies two quantized tensors, element by element.

    Source: TFLite's `kernels/internal/reference/integer_ops/mul.h`, multiplier from
    `kernels/mul.cc`, which computes it in float32.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.
        in_double: Whether the multiplier is computed in double, as in TensorFlow Lite Micro.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> multiply(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([ 20, 127], dtype=int32)
    """
    product = (as_int32(qa) - as_int32(za)) * (as_int32(qb) - as_int32(zb))
    with float64():
        ratio = (
            scale_ratio(sa, sb, sy) if in_double else _in_float32(_product(sa, sb) / as_float64(sy))
        )
        multiplier, shift = quantize_multiplier(ratio)
    return requantize(product, multiplier, shift, zy, low, high)


def product_multiplier(sa: Any, sb: Any, sy: Any) -> tuple[Any, Any]:
    """Returns the multiplier that rescales sums of products to the output's scale.

    For int8 convolutions see `conv_multiplier`.

    Source: `GetQuantizedConvolutionMultipler` in TFLite's `kernels/kernel_util.cc`: the product
    of the scales is rounded to float32, and the quotient is computed in double.

    Args:
        sa: float32 scalar, the scale of the first operand.
        sb: float32 tensor, the scale of the second operand.
        sy: float32 scalar, the scale of the product.

    Returns:
        `(multiplier, shift)`, int32 tensors with the shape of `sb`.

    Example:
    >>> multiplier, shift = product_multiplier(0.5, 0.75, 0.5)
    >>> int(multiplier) / 2**31, int(shift)
    (0.75, 0)
    """
    with float64():
        return quantize_multiplier(quotient(_product(sa, sb), as_float64(sy)))


def requantize_product(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes the accumulators of BATCH_MATMUL, and of uint8 convolutions.

    Source: `product_multiplier` and `requantize`.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> requantize_product(ops.array([100], "int32"), 0.5, 0.75, 0.5, 3, 0, 255).numpy()
    array([78], dtype=int32)
    """
    multiplier, shift = product_multiplier(input_scale, weight_scale, output_scale)
    return requantize(acc, multiplier, shift, zero_point, low, high)


def _product(sa: Any, sb: Any) -> Any:
    """Returns the float32 product as float64. The product is exact in double, and rounded once."""
    return _in_float32(as_float64(sa) * as_float64(sb))


def _in_float32(x: Any) -> Any:
    """Rounds a float64 to float32, which removes wrong last bits of a quotient."""
    return ops.cast(as_float32(ops.cast(x, "float32")), "float64")
