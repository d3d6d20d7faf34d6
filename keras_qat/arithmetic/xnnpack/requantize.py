"""Requantization by a float32 scale, for sums of products and for products of two tensors."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32
from keras_qat.backend import float64


def requantize_float32(
    acc: Any,
    input_scale: Any,
    weight_scale: Any,
    output_scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
) -> Any:
    """Requantizes the accumulators of convolutions and matrix products to the output's scale.

    Source: XNNPACK's `src/qs8-gemm/MRx8c8-avx2.c.in` and its other microkernels with `fp32` in the
    name, scale from `src/operators/convolution-nhwc.c`. LiteRT delegates CONV_2D,
    DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV, and BATCH_MATMUL with a constant.

    Args:
        acc: int32 tensor `(..., channels)`, bias included. It may also be a float32 tensor of whole
            numbers of at most 2**24.
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar. The ratio of the scales is from 2**-32 to 256.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output, from the type and the fused activation.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> acc = ops.array([3, -3, 5], "int32")
    >>> requantize_float32(acc, 0.5, 1.0, 1.0, 0, -128, 127).numpy()
    array([ 2, -2,  2], dtype=int32)
    """
    return rescale_float32(
        acc, scale_float32(input_scale, weight_scale, output_scale), zero_point, low, high
    )


def scale_float32(input_scale: Any, weight_scale: Any, output_scale: Any) -> Any:
    """Returns `input_scale * weight_scale / output_scale`, both steps rounded to float32.

    Args:
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar.

    Returns:
        float32 tensor, scalar or `(channels,)`.

    Example:
    >>> float(scale_float32(0.5, 0.25, 2.0))
    0.0625
    """
    with float64():
        # Double products of two floats are exact, and double quotients of them round to the float
        # quotient. No compiler rearranges operations on both sides of a conversion.
        product = ops.cast(as_float64(input_scale) * as_float64(weight_scale), "float32")
        ratio = ops.cast(product, "float64") / as_float64(output_scale)
        return ops.cast(ratio, "float32")


def rescale_float32(acc: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """Multiplies integers by a float32 scale, and rounds ties to even.

    Args:
        acc: int32 tensor `(..., channels)`. It may also be a float32 tensor of whole numbers of at
            most 2**24.
        scale: float32 scalar or `(channels,)`.
        zero_point: int32 scalar, the output's.
        low: int32 scalar, the least output.
        high: int32 scalar, the greatest output.

    Returns:
        int32 tensor like `acc`.

    Example:
    >>> rescale_float32(ops.array([3, 5], "int32"), 0.5, 1, -128, 127).numpy()
    array([3, 3], dtype=int32)
    """
    zero_point = as_int32(zero_point)
    least, most = (ops.cast(as_int32(limit) - zero_point, "float32") for limit in (low, high))
    scale = as_float32(scale)
    # The results of NaN are discarded later, but tables need an index.
    scale = ops.where(ops.isfinite(scale), scale, ops.zeros_like(scale))
    steps = ops.round(ops.cast(acc, "float32") * scale)
    return ops.cast(ops.minimum(ops.maximum(steps, least), most), "int32") + zero_point
