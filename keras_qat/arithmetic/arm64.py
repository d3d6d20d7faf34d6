"""The integer rules of LiteRT's default kernels on ARM64, where they differ from those on x86-64.

Each function has the arguments of the function of the same name for x86-64, in `xnnpack` or
`optimized`. All other rules of int8 kernels are the same on both processors, except that of
HARD_SWISH (see `hard_swish`). The kernels of uint8 with weights round in another way on ARM64, for
which there are no rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32
from keras_qat.arithmetic.fixed_point import (
    conv_multiplier,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from keras_qat.arithmetic.optimized.softmax import exponentials
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.xnnpack.requantize import scale_float32
from keras_qat.backend import float64

_STEPS_IN_ONE = 256  # of the output of a softmax
_UINT16_MAX = 2**16 - 1


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
    """Multiplies two quantized tensors, element by element, and rounds a half up.

    Source: XNNPACK's `src/qs8-vmul/neon.c.in` with `RNDNU`, multiplier from
    `xnn_init_qs8_mul_minmax_rndnu_neon_params` in `src/microparams-init.c`.

    Args:
        qa: int32 tensor, the first input.
        sa: float32 scalar, its scale.
        za: int32 scalar, its zero point.
        qb: int32 tensor that broadcasts with `qa`, the second input.
        sb: float32 scalar, its scale.
        zb: int32 scalar, its zero point.
        sy: float32 scalar, the output's scale, limited as on x86-64.
        zy: int32 scalar, the output's zero point.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor.

    Example:
    >>> q = ops.array([1, 3, -3], "int32")
    >>> multiply(q, 0.5, 0, 1, 1.0, 0, 1.0, 0, -128, 127).numpy()
    array([ 1,  2, -1], dtype=int32)
    """
    product = (as_int32(qa) - as_int32(za)) * (as_int32(qb) - as_int32(zb))
    scale = scale_float32(sa, sb, sy)
    with float64():
        steps = ops.cast(product, "float64") * as_float64(scale)  # exact: 17 + 24 bits
        even = ops.round(steps)
        is_half = ops.cast(ops.equal(steps - even, 0.5), "int32")
        rounded = ops.cast(even, "int32") + is_half
    return clip(rounded + as_int32(zy), low, high)


def requantize_half_up(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes accumulators of a matrix product with weights of 4 bits, with one rounding.

    Source: `kernel_arm64.cc` of the library Ruy. It runs CONV_2D with such weights, and
    FULLY_CONNECTED with such weights and an odd number of inputs.

    Args:
        acc: int32 tensor `(..., channels)`, bias included.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([[-6, 6]], "int32")
    >>> requantize_half_up(acc, 0.25, 1.0, 1.0, 0, -128, 127).numpy()
    array([[-1,  2]], dtype=int32)
    """
    multiplier, shift = conv_multiplier(input_scale, weight_scale, output_scale)
    with float64():
        product = ops.cast(as_int32(acc), "int64") * ops.cast(multiplier, "int64")
        right = ops.cast(31 - shift, "int64")
        half = ops.left_shift(ops.ones_like(right), right - 1)
        rounded = ops.right_shift(product + half, right)
        scaled = ops.cast(ops.clip(rounded, -(2**24), 2**24), "int32")
    return clip(scaled + as_int32(zero_point), low, high)


def mean(
    sum_q: Any,
    n: int,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Rescales the sum over reduced axes to their mean in the output's scale.

    Source: XNNPACK's `src/operators/reduce-nd.c` and `src/xnnpack/reference-utils.h`, in which
    compilers for ARM64 contract a product and a sum.

    Args:
        sum_q: int32 tensor, the sum of `n` integers.
        n: Number of integers in each sum, a Python integer.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `sum_q`.

    Example:
    >>> mean(ops.array([30, -45], "int32"), 3, 0.5, 0, 0.5, 1, -128, 127).numpy()
    array([ 11, -14], dtype=int32)
    """
    reciprocal = np.float32(1.0) / np.float32(n)
    scale = scale_float32(scale_float32(input_scale, 1.0, output_scale), reciprocal, 1.0)
    zeros = ops.cast(as_int32(input_zero_point), "float32") * np.float32(n)
    zero_point = ops.cast(as_int32(output_zero_point), "float32")
    offset = _fused_multiply_add(-zeros, scale, zero_point)
    steps = _fused_multiply_add(ops.cast(as_int32(sum_q), "float32"), scale, offset)
    return clip(ops.cast(ops.round(steps), "int32"), low, high)


def _fused_multiply_add(a: Any, b: Any, c: Any) -> Any:
    """Returns `a * b + c` in float32, rounded once. The product is exact in double."""
    with float64():
        return as_float32(ops.cast(as_float64(a) * as_float64(b) + as_float64(c), "float32"))


def softmax(q: Any, input_scale: Any, *, beta: float = 1.0) -> Any:
    """Applies softmax over the last axis; the output has scale 1/256 and zero point -128.

    Source: `SoftmaxInt8LUT` and `PopulateSoftmaxUInt8LookupTable` in TFLite's
    `kernels/internal/optimized/optimized_ops.h`.

    Args:
        q: int32 tensor `(..., classes)` of 8-bit values, fewer than 32768 classes.
        input_scale: float32 scalar.
        beta: Factor of the logits.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> softmax(ops.array([[0, 0, -128, -128]], "int32"), 0.25).numpy()
    array([[   0,    0, -128, -128]], dtype=int32)
    """
    q = as_int32(q)
    scaled = exponentials(input_scale, beta) * np.float32(_UINT16_MAX)
    with float64():
        table = ops.cast(as_float64(scaled) + 0.5, "int32")
    index = q - ops.max(q, axis=-1, keepdims=True) + 255
    terms = ops.take(table, index, axis=0)
    total = ops.cast(ops.sum(terms, axis=-1, keepdims=True), "float32")
    with float64():
        inverse = as_float32(ops.cast(float(_STEPS_IN_ONE) / as_float64(total), "float32"))
        multiplier, shift = quantize_multiplier(as_float64(inverse))
    return clip(multiply_by_quantized_multiplier(terms, multiplier, shift) - 128, -128, 127)
