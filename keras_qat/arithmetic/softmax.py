"""SOFTMAX in gemmlowp's fixed point."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32
from keras_qat.arithmetic.fixed_point import (
    INT32_MAX,
    quantize_multiplier,
    rounding_divide_by_pot,
    srdhm,
)
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64

_DIFF_FRACTION = 26  # differences from the maximum are Q5.26
_SUM_INTEGER_BITS = 12  # the sum of the exponentials is Q12.19
_ONE_QUARTER = 2 ** (_DIFF_FRACTION - 2)
# exp(-2**k) with 31 fractional bits, for k from -2 to 4
_EXP_OF_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def softmax(q: Any, input_scale: Any, *, beta: float = 1.0) -> Any:
    """Applies softmax over the last axis; the output has scale 1/256 and zero point -128.

    Source: `Softmax` for integers in TFLite's `kernels/internal/reference/softmax.h`,
    `PreprocessSoftmaxScaling` in `kernels/internal/quantization_util.cc`, and the functions
    of gemmlowp's `fixedpoint/fixedpoint.h`.

    If the exponentials sum to 512 times the largest or more (flat logits over 512 classes or
    more), the reference kernel stops the process. Here all outputs are then -128, which is 0.

    Args:
        q: int32 tensor `(..., classes)` of int8 values, fewer than 8192 classes.
        input_scale: float32 scalar.
        beta: Factor of the logits.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> softmax(ops.array([[0, 0, -128, -128]], "int32"), 0.25).numpy()
    array([[   0,    0, -128, -128]], dtype=int32)
    """
    return _softmax(q, *_tables(input_scale, beta=beta))


def _softmax(q: Any, exponentials: Any, kept: Any) -> Any:
    q = as_int32(q)
    index = q - ops.max(q, axis=-1, keepdims=True) + 255
    terms = ops.take(rounding_divide_by_pot(exponentials, _SUM_INTEGER_BITS) * kept, index, axis=0)
    scale, bits_over_unit = _reciprocal(ops.sum(terms, axis=-1, keepdims=True))
    product = srdhm(scale, ops.take(exponentials, index, axis=0))
    shift = bits_over_unit + 23
    output = rounding_divide_by_pot(product, ops.minimum(shift, 31))
    # A longer shift, for which the reference kernel aborts, leaves less than one half.
    counts = ops.take(kept, index, axis=0) * ops.cast(shift <= 31, "int32")
    return clip(output * counts - 128, -128, 127)


def _tables(input_scale: Any, *, beta: float) -> tuple[Any, Any]:
    """Returns `exp` of the differences -255 .. 0, and 1 for those large enough to count, else 0."""
    with float64():
        real = as_float64(input_scale) * float(np.float32(beta)) * 2**_DIFF_FRACTION
        limit = ops.cast(np.float64(INT32_MAX), "float64")
        multiplier, shift = quantize_multiplier(ops.where(real < limit, real, limit))
    differences = ops.arange(-255, 1, dtype="int32")
    least = -ops.right_shift(as_int32(31 * 2**_DIFF_FRACTION), shift)
    scaled = srdhm(ops.left_shift(differences, shift), multiplier)
    return _exp_of_negative(scaled), ops.cast(differences >= least, "int32")


def _exp_of_negative(a: Any) -> Any:
    """Computes `exp_on_negative_values`: Q5.26 in, Q0.31 out, a factor for each bit above 1/4."""
    offset = ops.bitwise_and(a, as_int32(_ONE_QUARTER - 1)) - _ONE_QUARTER
    result = _exp_of_last_quarter(ops.left_shift(offset, 5))
    remainder, one = offset - a, as_int32(1)
    for power, factor in enumerate(_EXP_OF_POWERS):
        bit = ops.bitwise_and(ops.right_shift(remainder, _DIFF_FRACTION - 2 + power), one)
        result = ops.where(ops.equal(bit, 1), srdhm(result, as_int32(factor)), result)
    return ops.where(ops.equal(a, 0), as_int32(INT32_MAX), result)


def _exp_of_last_quarter(a: Any) -> Any:
    """Computes `exp_on_interval_between_negative_one_quarter_and_0_excl`: Taylor at -1/8, Q0.31."""
    at_eighth, third = as_int32(1895147668), as_int32(715827883)  # exp(-1/8), 1/3
    x = a + 2**28
    x2 = srdhm(x, x)
    x3 = srdhm(x2, x)
    x4_over_4 = rounding_divide_by_pot(srdhm(x2, x2), 2)
    tail = rounding_divide_by_pot(srdhm(x4_over_4 + x3, third) + x2, 1)
    return at_eighth + srdhm(at_eighth, x + tail)


def _reciprocal(total: Any) -> tuple[Any, Any]:
    """Computes `GetReciprocal`: 1 / total, normalized to Q0.31, and the power of two it is off."""
    powers = as_int32(2 ** np.arange(31))
    smaller = ops.cast(ops.expand_dims(total, -1) < powers, "int32")
    headroom = ops.where(total < 0, 0, 1 + ops.sum(smaller, axis=-1))  # `total` is unsigned in C++
    above_one = ops.bitwise_and(ops.left_shift(total, headroom), as_int32(INT32_MAX))
    half = ops.right_shift(above_one, 1) + 2**30
    # Newton's method in Q2.29 starts from 48/17 - 32/17 * half.
    x = 1515870810 + srdhm(half, as_int32(-1010580540))
    for _ in range(3):
        error = 2**29 - srdhm(half, x)
        x = x + _saturating_left_shift(srdhm(x, error), 2)
    return _saturating_left_shift(x, 1), _SUM_INTEGER_BITS - headroom


def _saturating_left_shift(x: Any, n: int) -> Any:
    """Computes `SaturatingRoundingMultiplyByPOT` for a positive exponent."""
    threshold = 2 ** (31 - n) - 1
    shifted = ops.where(x > threshold, as_int32(INT32_MAX), ops.left_shift(x, n))
    return ops.where(x < -threshold, as_int32(-(2**31)), shifted)
