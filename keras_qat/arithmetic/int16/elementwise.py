"""Addition of 16-bit integers, by instructions that take 16 at once."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.elementwise import add, multipliers
from keras_qat.arithmetic.exact_float import as_int32
from keras_qat.arithmetic.fixed_point import rounding_divide_by_pot, srdhm
from keras_qat.arithmetic.requantize import clip

HEADROOM = 15  # bits that the int16 kernels give both inputs before they scale them
_BLOCK = 16  # elements of one step of the kernel


def add_in_blocks(
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
    """Adds two tensors of 16-bit integers as LiteRT's optimized kernel does.

    Source: `AddElementwiseInt16` in TFLite's `kernels/internal/optimized/integer_ops/add.h`. It
    rounds scaled inputs once in blocks of 16 elements of the whole batch, and not twice. The
    elements that remain, and operands of different shapes, are those of the reference kernel.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point, 0.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point, 0.
        sy: float32 scalar, the output's scale.
        zy: int32 scalar, the output's zero point, 0.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> add_in_blocks(q, 0.5, 0, q, 0.25, 0, 0.5, 0, -32768, 32767).numpy()
    array([  15, -192], dtype=int32)
    """
    a, b = as_int32(qa), as_int32(qb)
    single = add(a, sa, za, b, sb, zb, sy, zy, low, high, headroom=HEADROOM)
    first, second, (multiplier, shift) = multipliers(sa, sb, sy, HEADROOM)
    total = srdhm(_scaled(a, first) + _scaled(b, second), multiplier)
    blocks = clip(rounding_divide_by_pot(total, ops.maximum(-shift, 0)), low, high)
    size = ops.cast(ops.size(single), "int32")
    places = ops.reshape(ops.arange(ops.size(single), dtype="int32"), ops.shape(single))
    are_equal = ops.logical_and(ops.size(a) == ops.size(b), ops.size(a) == ops.size(single))
    return ops.where(ops.logical_and(are_equal, places < size - size % _BLOCK), blocks, single)


def _scaled(q: Any, multiplier: tuple[Any, Any]) -> Any:
    """Shifts integers and multiplies them, with one rounding."""
    shift = multiplier[1] + HEADROOM
    shifted = ops.right_shift(ops.left_shift(q, ops.maximum(shift, 0)), ops.maximum(-shift, 0))
    return srdhm(shifted, multiplier[0])
