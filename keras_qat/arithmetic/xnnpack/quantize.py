"""QUANTIZE and LEAKY_RELU: one tensor with a new scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_int32
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.xnnpack.requantize import rescale_float32, scale_float32
from keras_qat.backend import compiled

_FRACTION_BITS = 8  # of the multipliers


@compiled
def quantize(x: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """Quantizes floats to integers, as QUANTIZE from float32 to an 8-bit type does.

    Source: XNNPACK's `src/f32-qs8-vcvt/scalar-lrintf.c.in`. It multiplies by the reciprocal of the
    scale, rounded to float32.

    Args:
        x: float32 tensor.
        scale: float32 scalar.
        zero_point: int32 scalar.
        low: int32 scalar, the least integer of the type.
        high: int32 scalar, the greatest integer of the type.

    Returns:
        int32 tensor like `x`.

    Example:
    >>> quantize(ops.array([0.25, -0.75, 1000.0]), 0.5, -1, -128, 127).numpy()
    array([ -1,  -3, 127], dtype=int32)
    """
    x = ops.where(ops.isnan(x), ops.zeros_like(x), x)  # as in `rescale_float32`
    return rescale_float32(x, scale_float32(1.0, 1.0, scale), zero_point, low, high)


@compiled
def rescale(
    q: Any,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes integers to another scale and zero point, as QUANTIZE of one 8-bit type does.

    Source: XNNPACK's `src/qs8-vcvt/scalar.c.in`, multiplier from `xnn_init_qs8_cvt_scalar_params`
    in `src/microparams-init.c`. The multiplier has 8 fractional bits only.

    Args:
        q: int32 tensor.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar. LiteRT delegates QUANTIZE if `input_scale / output_scale` is
            from 2**-8 to 2**7.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> rescale(ops.array([4, 5, -5], "int32"), 0.5, 0, 1.0, -1, -128, 127).numpy()
    array([ 1,  2, -3], dtype=int32)
    """
    centered = as_int32(q) - as_int32(input_zero_point)
    product = centered * _multiplier(scale_float32(input_scale, 1.0, output_scale))
    return clip(_round(product) + as_int32(output_zero_point), low, high)


def leaky_relu(
    q: Any,
    input_scale: Any,
    input_zero_point: Any,
    slope: Any,
    output_scale: Any,
    output_zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Returns `x` where it is positive, `slope * x` elsewhere.

    Source: XNNPACK's `src/qs8-vlrelu/scalar-select.c.in`, multipliers from
    `xnn_init_qs8_lrelu_scalar_params` in `src/microparams-init.c`. The multipliers have 8
    fractional bits only.

    Args:
        q: int32 tensor.
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        slope: float32 scalar.
        output_scale: float32 scalar. LiteRT delegates LEAKY_RELU if `input_scale / output_scale` is
            from 2**-8 to 2**7, and that times `slope` from 2**-8 to 2**7 or from -127.99 to -2**-8.
        output_zero_point: int32 scalar.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> leaky_relu(ops.array([10, -8], "int32"), 1.0, 0, 0.5, 1.0, 0, -128, 127).numpy()
    array([10, -4], dtype=int32)
    """
    ratio = scale_float32(input_scale, 1.0, output_scale)
    positive, negative = _multiplier(ratio), _multiplier(scale_float32(ratio, slope, 1.0))
    centered = as_int32(q) - as_int32(input_zero_point)
    product = centered * ops.where(centered > 0, positive, negative)
    return clip(_round(product) + as_int32(output_zero_point), low, high)


def _multiplier(ratio: Any) -> Any:
    """Returns a float32 as int32 with 8 fractional bits, ties to even."""
    return ops.cast(ops.round(ratio * np.float32(2**_FRACTION_BITS)), "int32")


def _round(product: Any) -> Any:
    """Removes the fractional bits, a half up. 16-bit instructions compute the same."""
    return ops.right_shift(product + 2 ** (_FRACTION_BITS - 1), _FRACTION_BITS)
