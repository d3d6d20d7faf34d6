"""Bilinear interpolation (RESIZE_BILINEAR), of int8 in integers and of uint8 in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_int32

_BITS = 10
_ONE = 1 << _BITS
# Products of a uint8 value and weights below 2 are far smaller.
_FAR = np.float32(2048.0)


class Interpolation(NamedTuple):
    """A rule of RESIZE_BILINEAR.

    Attributes:
        taps: Returns the `Taps` of an axis for its two sizes.
        interpolate: Computes the output from integers and the taps of height and width.
        one: The weight that stands for 1.
    """

    taps: Callable[[int, int], Taps]
    interpolate: Callable[..., Any]
    one: int


class Taps(NamedTuple):
    """The two neighbours of each output position along one axis, and their weights.

    Attributes:
        lower: int32, positions of the first neighbours.
        upper: int32, positions of the second neighbours.
        weights: Weights of the second neighbours, in 1024ths as int32 or in ones as float32. The
            first neighbours have the rest.
    """

    lower: np.ndarray
    upper: np.ndarray
    weights: np.ndarray


def bilinear_taps(size_in: int, size_out: int) -> Taps:
    """Returns the neighbours that the reference kernel interpolates between.

    Source: `ComputeInterpolationValuesInteger` in TFLite's
    `kernels/internal/reference/resize_bilinear.h`, with half-pixel centers.

    Args:
        size_in: Size of the axis.
        size_out: Size of the axis after resizing.

    Returns:
        The `Taps`. If the axis grows several hundred times, the rounded scale can lead to a
        `lower` beyond the axis. The kernel reads this position too.

    Example:
    >>> taps = bilinear_taps(2, 4)
    >>> taps.lower.tolist(), taps.upper.tolist(), taps.weights.tolist()
    ([0, 0, 0, 1], [0, 1, 1, 1], [-256, 256, 768, 256])
    """
    scale = (_ONE * size_in + size_out // 2) // size_out
    position = np.arange(size_out, dtype="int64") * scale + scale // 2 - _ONE // 2
    # C++ truncates, which differs for negative numbers. The lower bound is 0 in both cases.
    lower = np.maximum(position // _ONE, 0)
    upper = np.minimum(-(-position // _ONE), size_in - 1)
    weights = position - _ONE * lower
    return Taps(*(values.astype("int32") for values in (lower, np.maximum(upper, 0), weights)))


def interpolate(
    q: Any, top: Any, bottom: Any, down: Any, left: Any, right: Any, across: Any
) -> Any:
    """Interpolates between four neighbours.

    Source: `ResizeBilinearInteger` in TFLite's `kernels/internal/reference/resize_bilinear.h`.
    The kernel takes 64 bits. int8 values need 28 of them, so int32 is enough.

    Args:
        q: int32 tensor `(batch, height, width, channels)` of int8 values, zero point included.
        top: int32, `lower` of the `Taps` of the height.
        bottom: int32, `upper`.
        down: int32, `weights`.
        left: int32, `lower` of the `Taps` of the width.
        right: int32, `upper`.
        across: int32, `weights`.

    Returns:
        int32 tensor of int8 values, rounded half away from zero.

    Example:
    >>> q, taps = ops.array([[[[0], [3]]]], "int32"), bilinear_taps(2, 4)
    >>> interpolate(q, *bilinear_taps(1, 1), *taps).numpy().ravel().tolist()
    [0, 1, 2, 3]
    """
    rows = _blend(as_int32(q), top, bottom, down, axis=1)
    sums = _blend(rows, left, right, across, axis=2)
    size = ops.right_shift(ops.abs(sums) + (1 << (2 * _BITS - 1)), 2 * _BITS)
    return ops.where(sums < 0, -size, size)


def bilinear_float_taps(size_in: int, size_out: int) -> Taps:
    """Returns the neighbours that the reference kernel of uint8 interpolates between.

    Source: `ComputeInterpolationValues` in TFLite's
    `kernels/internal/reference/resize_bilinear.h`, with half-pixel centers.

    Args:
        size_in: Size of the axis.
        size_out: Size of the axis after resizing.

    Returns:
        The `Taps`, with float32 weights.

    Example:
    >>> bilinear_float_taps(2, 4).weights.tolist()
    [-0.25, 0.25, 0.75, 0.25]
    """
    half, scale = np.float32(0.5), np.float32(size_in) / np.float32(size_out)
    position = (np.arange(size_out, dtype="float32") + half) * scale - half
    lower = np.maximum(np.floor(position), 0)
    upper = np.minimum(np.ceil(position), size_in - 1)
    return Taps(lower.astype("int32"), upper.astype("int32"), position - lower)


def interpolate_in_float(
    q: Any, top: Any, bottom: Any, down: Any, left: Any, right: Any, across: Any
) -> Any:
    """Interpolates between four neighbours, each operation rounded to float32.

    Source: `ResizeBilinear` in TFLite's `kernels/internal/reference/resize_bilinear.h`, which
    interpolates uint8 in this way.

    Args:
        q: int32 tensor `(batch, height, width, channels)` of uint8 values, zero point included.
        top: int32, `lower` of the `bilinear_float_taps` of the height.
        bottom: int32, `upper`.
        down: float32, `weights`.
        left: int32, `lower` of the `bilinear_float_taps` of the width.
        right: int32, `upper`.
        across: float32, `weights`.

    Returns:
        int32 tensor of uint8 values, a half rounded up.

    Example:
    >>> q = ops.array([[[[0], [3]]]], "int32")
    >>> taps = bilinear_float_taps(2, 4)
    >>> interpolate_in_float(q, *bilinear_float_taps(1, 1), *taps).numpy().ravel().tolist()
    [0, 1, 2, 3]
    """
    one, half = np.float32(1.0), np.float32(0.5)
    q = ops.cast(q, "float32")
    down = ops.reshape(down, (-1, 1, 1))
    across = ops.reshape(across, (-1, 1))
    total = None
    # The order is that of the kernel's sum.
    for column, x_weight in ((left, one - across), (right, across)):
        for row, y_weight in ((top, one - down), (bottom, down)):
            corner = ops.take(ops.take(q, row, axis=1), column, axis=2)
            term = _product(_product(corner, y_weight), x_weight)
            total = term if total is None else total + term
    return ops.cast(total + half, "int32")


def _product(a: Any, b: Any) -> Any:
    """Returns a product, clipped to wide limits so that no compiler contracts it further."""
    return ops.clip(a * b, -_FAR, _FAR)


def _blend(x: Any, lower: Any, upper: Any, weights: Any, *, axis: int) -> Any:
    weights = ops.reshape(as_int32(weights), [-1 if i == axis else 1 for i in range(4)])
    first, second = ops.take(x, lower, axis=axis), ops.take(x, upper, axis=axis)
    return first * (_ONE - weights) + second * weights


IN_INTEGERS = Interpolation(bilinear_taps, interpolate, _ONE)
IN_FLOAT = Interpolation(bilinear_float_taps, interpolate_in_float, 1)
