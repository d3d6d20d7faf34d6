"""Quantization of floats to 16-bit integers, by instructions that take 8 at once."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32, round_half_away
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.xnnpack.quantize import quantize
from keras_qat.backend import compiled, float64

_BLOCK = 8  # elements of one step of the kernel


@compiled
def quantize_in_blocks(x: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """Quantizes floats as LiteRT's optimized kernel from float32 to int16 does.

    Source: `AffineQuantize` in TFLite's `kernels/internal/optimized/optimized_ops.h`. Blocks of 8
    elements of the whole batch are multiplied by the reciprocal of the scale and rounded to even.
    The elements that remain are divided, and rounded half away from zero.

    Args:
        x: float32 tensor.
        scale: float32 scalar.
        zero_point: int32 scalar.
        low: int32 scalar, the least integer of the type.
        high: int32 scalar, the greatest integer of the type.

    Returns:
        int32 tensor like `x`.

    Example:
    >>> quantize_in_blocks(ops.array([0.25] * 9), 0.5, 0, -32768, 32767).numpy()
    array([0, 0, 0, 0, 0, 0, 0, 0, 1], dtype=int32)
    """
    x = as_float32(x)
    with float64():
        divided = round_half_away(as_float64(x) / as_float64(scale))
    single = clip(divided + as_int32(zero_point), low, high)
    size = ops.cast(ops.size(x), "int32")
    places = ops.reshape(ops.arange(ops.size(x), dtype="int32"), ops.shape(x))
    blocks = quantize(x, scale, zero_point, low, high)
    return ops.where(places < size - size % _BLOCK, blocks, single)
