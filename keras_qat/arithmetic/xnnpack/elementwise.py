"""Addition, subtraction and multiplication of two tensors with different scales."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float64,
    as_int32,
    exponent,
    power_of_two,
)
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.xnnpack.requantize import rescale_float32, scale_float32
from keras_qat.backend import float64

_MULTIPLIER_BITS = 21  # of the larger multiplier


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

    Source: XNNPACK's `src/qs8-vmul/scalar.c.in`, scale from `xnn_init_qs8_mul_minmax_scalar_params`
    in `src/microparams-init.c`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale. LiteRT delegates MUL if `sa * sb / sy` is at least
            2**-16 and below 2**8.
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
    return rescale_float32(product, scale_float32(sa, sb, sy), zy, low, high)


def add(
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
    """Adds two quantized tensors.

    Source: XNNPACK's `src/qs8-vadd/scalar.c.in`, multipliers from
    `xnn_init_qs8_add_minmax_scalar_params` in `src/microparams-init.c`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale. LiteRT delegates ADD if `sa / sy` and `sb / sy` are
            at least 2**-10 and below 2**8.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> add(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([  14, -128], dtype=int32)
    """
    first, second, shift = _multipliers(sa, sb, sy)
    return _combine(qa, za, first, qb, zb, second, shift, zy, low, high)


def subtract(
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
    """Subtracts the second quantized tensor from the first.

    Source: XNNPACK adds the product with a negative multiplier, see `add`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale, limited as in `add`.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> subtract(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([  6, -63], dtype=int32)
    """
    first, second, shift = _multipliers(sa, sb, sy)
    return _combine(qa, za, first, qb, zb, -second, shift, zy, low, high)


def _multipliers(sa: Any, sb: Any, sy: Any) -> tuple[Any, Any, Any]:
    """Returns the multipliers of both inputs, and the right shift of the sum of the products."""
    first, second = scale_float32(sa, 1.0, sy), scale_float32(sb, 1.0, sy)
    larger = ops.maximum(first, second)
    with float64():
        shift = _MULTIPLIER_BITS - exponent(as_float64(larger))
        power = power_of_two(shift)
        multipliers = (ops.round(as_float64(ratio) * power) for ratio in (first, second))
        return *(ops.cast(multiplier, "int32") for multiplier in multipliers), shift


def _combine(
    qa: Any,
    za: Any,
    first: Any,
    qb: Any,
    zb: Any,
    second: Any,
    shift: Any,
    zy: Any,
    low: Any,
    high: Any,
) -> Any:
    """Rounds the weighted sum, a half up. The offset has the zero points and half a step."""
    half = ops.left_shift(as_int32(1), shift - 1)
    offset = half - first * as_int32(za) - second * as_int32(zb)
    total = as_int32(qa) * first + as_int32(qb) * second + offset
    return clip(ops.right_shift(total, shift) + as_int32(zy), low, high)
