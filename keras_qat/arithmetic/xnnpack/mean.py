"""MEAN."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.xnnpack.requantize import scale_float32
from keras_qat.backend import float64


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

    Source: XNNPACK's `xnn_reshape_reduce_nd` in `src/operators/reduce-nd.c`, and `quantize` in
    `src/xnnpack/reference-utils.h`. The zero points are a float32 that is added before rounding.

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
    offset = ops.cast(as_int32(output_zero_point), "float32") - _product(zeros, scale)
    steps = _product(ops.cast(as_int32(sum_q), "float32"), scale) + offset
    return clip(ops.cast(ops.round(steps), "int32"), low, high)


def _product(a: Any, b: Any) -> Any:
    """Returns the float32 product. No compiler contracts it with an addition that follows."""
    with float64():
        return as_float32(ops.cast(as_float64(a) * as_float64(b), "float32"))
