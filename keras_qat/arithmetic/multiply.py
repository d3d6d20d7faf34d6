"""Integer products of two tensors, element by element and as matrices."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32, quotient
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

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> multiply(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([ 20, 127], dtype=int32)
    """
    product = (as_int32(qa) - as_int32(za)) * (as_int32(qb) - as_int32(zb))
    with float64():
        ratio = _in_float32(_product(sa, sb) / as_float64(sy))
        multiplier, shift = quantize_multiplier(ratio)
    return requantize(product, multiplier, shift, zy, low, high)


def product_multiplier(sa: Any, sb: Any, sy: Any) -> tuple[Any, Any]:
    """Returns the multiplier that takes sums of products to the output's scale.

    That of BATCH_MATMUL, and of convolutions of uint8; those of int8 have `conv_multiplier`.

    Source: `GetQuantizedConvolutionMultipler` in TFLite's `kernels/kernel_util.cc`: the product
    of the scales is rounded to float32, the quotient is that of doubles.

    Args:
        sa: float32 scalar, the scale of the first operand.
        sb: float32 tensor, that of the second one.
        sy: float32 scalar, that of the product.

    Returns:
        `(multiplier, shift)`, int32 tensors with the shape of `sb`.

    Example:
    >>> multiplier, shift = product_multiplier(0.5, 0.75, 0.5)
    >>> int(multiplier) / 2**31, int(shift)
    (0.75, 0)
    """
    with float64():
        return quantize_multiplier(quotient(_product(sa, sb), as_float64(sy)))


def _product(sa: Any, sb: Any) -> Any:
    """The float32 product, as float64: in double it is exact, so that it is rounded once."""
    return _in_float32(as_float64(sa) * as_float64(sb))


def _in_float32(x: Any) -> Any:
    """Rounds a float64 to float32; a quotient's wrong last bits, as compilers may make, go."""
    return ops.cast(as_float32(ops.cast(x, "float32")), "float64")
