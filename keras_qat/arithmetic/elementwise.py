"""Integer addition and subtraction of two tensors with different scales."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32, quotient
from keras_qat.arithmetic.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64

HEADROOM = 20  # bits that the int8 kernels give both inputs before scaling them


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
    *,
    headroom: int = HEADROOM,
) -> Any:
    """Adds two quantized tensors.

    Source: TFLite's `kernels/internal/reference/integer_ops/add.h`, multipliers from
    `kernels/add.cc`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale, above `max(sa, sb) / 2**19`.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.
        headroom: Bits by which the kernel shifts both inputs before it scales them.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> add(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([  14, -128], dtype=int32)
    """
    first, second, output = multipliers(sa, sb, sy, headroom)
    total = _scaled(qa, za, first, headroom) + _scaled(qb, zb, second, headroom)
    return _output(total, output, zy, low, high)


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
    *,
    headroom: int = HEADROOM,
) -> Any:
    """Subtracts the second quantized tensor from the first.

    Source: TFLite's `kernels/internal/reference/sub.h`, multipliers from `kernels/sub.cc`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale, above `max(sa, sb) / 2**19`.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.
        headroom: Bits by which the kernel shifts both inputs before it scales them.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([10, -128], "int32")
    >>> subtract(q, 0.5, 0, q, 0.25, 2, 0.5, 0, -128, 127).numpy()
    array([  6, -63], dtype=int32)
    """
    first, second, output = multipliers(sa, sb, sy, headroom)
    total = _scaled(qa, za, first, headroom) - _scaled(qb, zb, second, headroom)
    return _output(total, output, zy, low, high)


def multipliers(sa: Any, sb: Any, sy: Any, headroom: int) -> tuple[Any, Any, Any]:
    """Returns the fixed-point multipliers of both inputs and of the output.

    Args:
        sa: float32 scalar, the scale of the first input.
        sb: float32 scalar, the scale of the second input.
        sy: float32 scalar, the output's scale.
        headroom: Bits by which the kernel shifts both inputs.

    Returns:
        Three pairs of int32 scalars, the multiplier and the shift.

    Example:
    >>> [int(shift) for _, shift in multipliers(0.5, 0.25, 0.5, 20)]
    [0, -1, -18]
    """
    largest = ops.maximum(as_float32(sa), as_float32(sb))
    with float64():
        common = as_float64(largest) * 2
        first = quotient(as_float64(sa), common)
        second = quotient(as_float64(sb), common)
        output = quotient(common, as_float64(sy) * 2**headroom)
        return quantize_multiplier(first), quantize_multiplier(second), quantize_multiplier(output)


def _scaled(q: Any, zero_point: Any, multiplier: tuple[Any, Any], headroom: int) -> Any:
    shifted = (as_int32(q) - as_int32(zero_point)) * 2**headroom
    return multiply_by_quantized_multiplier(shifted, *multiplier)


def _output(total: Any, multiplier: tuple[Any, Any], zero_point: Any, low: Any, high: Any) -> Any:
    scaled = multiply_by_quantized_multiplier(total, *multiplier)
    return clip(scaled + as_int32(zero_point), low, high)
