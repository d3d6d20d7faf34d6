"""Bilinear interpolation (RESIZE_BILINEAR) with weights of 11 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_int32
from keras_qat.arithmetic.resize import Interpolation, Taps

_BITS = 11
_ONE = 1 << _BITS


def bilinear_taps(size_in: int, size_out: int, *, align_corners: bool = False) -> Taps:
    """Returns the neighbours that XNNPACK interpolates between.

    Source: `xnn_indirection_init_resize_bilinear2d_hwc_q11` in XNNPACK's `src/indirection.c`. The
    positions are float32, the weights are rounded to 2048ths.

    Args:
        size_in: Size of the axis.
        size_out: Size of the axis after resizing.
        align_corners: Whether the first and the last values keep their positions. Otherwise, the
            positions are those of half-pixel centers.

    Returns:
        The `Taps`, with int32 weights in 2048ths. No position is beyond the axis.

    Example:
    >>> taps = bilinear_taps(2, 4)
    >>> taps.lower.tolist(), taps.upper.tolist(), taps.weights.tolist()
    ([0, 0, 0, 1], [1, 1, 1, 1], [0, 512, 1536, 0])
    """
    last = int(align_corners and size_out != 1)
    scale = np.float32(size_in - last) / np.float32(size_out - last)
    offset = np.float32(0.0 if align_corners else 0.5)
    position = np.arange(size_out, dtype="float32") * scale + (offset * scale - offset)
    position = np.clip(position, np.float32(0.0), np.float32(size_in - 1))
    lower = position.astype("int32")
    weights = np.rint((position - lower.astype("float32")) * np.float32(_ONE))
    return Taps(lower, np.minimum(lower + 1, size_in - 1), weights.astype("int32"))


def interpolate(
    q: Any, top: Any, bottom: Any, down: Any, left: Any, right: Any, across: Any
) -> Any:
    """Interpolates between four neighbours.

    Source: XNNPACK's `src/s8-ibilinear/scalar.c.in`.

    Args:
        q: int32 tensor `(batch, height, width, channels)` of 8-bit values. It makes no difference
            whether the zero point was subtracted.
        top: int32, `lower` of the `Taps` of the height.
        bottom: int32, `upper`.
        down: int32, `weights`.
        left: int32, `lower` of the `Taps` of the width.
        right: int32, `upper`.
        across: int32, `weights`.

    Returns:
        int32 tensor of 8-bit values, a half rounded up.

    Example:
    >>> q, taps = ops.array([[[[0], [3]]]], "int32"), bilinear_taps(2, 4)
    >>> interpolate(q, *bilinear_taps(1, 1), *taps).numpy().ravel().tolist()
    [0, 1, 2, 3]
    """
    rows = _blend(as_int32(q), top, bottom, down, axis=1)
    sums = _blend(rows, left, right, across, axis=2)
    return ops.right_shift(sums + (1 << (2 * _BITS - 1)), 2 * _BITS)


def _blend(x: Any, lower: Any, upper: Any, weights: Any, *, axis: int) -> Any:
    weights = ops.reshape(as_int32(weights), [-1 if i == axis else 1 for i in range(4)])
    first, second = ops.take(x, lower, axis=axis), ops.take(x, upper, axis=axis)
    return ops.left_shift(first, _BITS) + (second - first) * weights


IN_INTEGERS = Interpolation(bilinear_taps, interpolate, _ONE)
