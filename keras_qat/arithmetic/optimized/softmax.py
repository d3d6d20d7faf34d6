"""SOFTMAX by a float32 table of exponentials."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float32,
    as_float64,
    as_int32,
    power_of_two,
    round_half_away,
)
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64

_STEPS_IN_ONE = 256  # of the output
_LEAST = np.float32(-80.0)  # smaller exponentials change no sum, since the largest is 1
# The constants of `expf` in Arm's optimized routines: 32 roots of two and a polynomial.
_ROOTS = 2.0 ** (np.arange(32) / 32)
_INVERSE_LOG2 = float.fromhex("0x1.71547652b82fep+5")
_POLYNOMIAL = tuple(
    float.fromhex(digits)
    for digits in ("0x1.c6af84b912394p-20", "0x1.ebfce50fac4f3p-13", "0x1.62e42ff0c52d6p-6")
)


def softmax(q: Any, input_scale: Any, *, beta: float = 1.0) -> Any:
    """Applies softmax over the last axis; the output has scale 1/256 and zero point -128.

    Source: `Softmax` and `PopulateSoftmaxLookupTable` in TFLite's
    `kernels/internal/optimized/optimized_ops.h`. On ARM64 the kernel has another table.

    Args:
        q: int32 tensor `(..., classes)` of 8-bit values.
        input_scale: float32 scalar.
        beta: Factor of the logits.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> softmax(ops.array([[0, 0, -128, -128]], "int32"), 0.25).numpy()
    array([[   0,    0, -128, -128]], dtype=int32)
    """
    q = as_int32(q)
    index = q - ops.max(q, axis=-1, keepdims=True) + 255
    terms = ops.take(exponentials(input_scale, beta), index, axis=0)
    total = ops.expand_dims(_sum_in_order(terms), -1)
    with float64():
        inverse = as_float32(ops.cast(float(_STEPS_IN_ONE) / as_float64(total), "float32"))
    return clip(round_half_away(terms * inverse) - 128, -128, 127)


def exponentials(input_scale: Any, beta: float = 1.0) -> Any:
    """Returns the exponentials of all differences of two 8-bit logits, from -255 to 0.

    This is the algorithm of `expf` in the C libraries of Linux and Android, whose result
    is seldom not the nearest float32.

    Args:
        input_scale: float32 scalar.
        beta: Factor of the logits.

    Returns:
        float32 tensor of shape (256,). Exponents below -80 have the exponential of -80.

    Example:
    >>> exponentials(0.5).numpy()[-2:].round(4).tolist()
    [0.6065000295639038, 1.0]
    """
    with float64():
        scale = as_float32(ops.cast(as_float64(input_scale) * float(np.float32(beta)), "float32"))
    x = ops.maximum(as_float32(np.arange(-255, 1, dtype="float32")) * scale, _LEAST)
    with float64():
        roots = as_float64(x) * _INVERSE_LOG2
        count = ops.cast(ops.round(roots), "int32")
        r = roots - ops.cast(count, "float64")
        shift = ops.right_shift(count, 5)
        root = ops.take(ops.cast(_ROOTS, "float64"), count - shift * 32, axis=0)
        cubic = (_POLYNOMIAL[0] * r + _POLYNOMIAL[1]) * (r * r) + (_POLYNOMIAL[2] * r + 1.0)
        return ops.cast(cubic * (root * power_of_two(shift)), "float32")


def _sum_in_order(terms: Any) -> Any:
    """Sums over the last axis, each sum rounded to float32. `ops.sum` would add in any order."""
    columns = ops.moveaxis(terms, -1, 0)
    classes = ops.shape(columns)[0]

    def add_next(index, total):
        return index + 1, total + ops.take(columns, index, axis=0)

    start = as_int32(0), ops.zeros_like(columns[0])
    return ops.while_loop(lambda index, total: index < classes, add_next, start)[1]
