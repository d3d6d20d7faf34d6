"""Weights in the form in which the file stores them."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.layers.core.integers import OffsetInts
from keras_qat.litert import Quantization
from keras_qat.quantizers import Grid, quantize_weights, weight_grid
from keras_qat.scheme import Scheme


def centered_constant(values: Any, scheme: Scheme, least_scale: Any = None) -> OffsetInts:
    """Quantizes a constant operand with one scale, like weights.

    Args:
        values: float32 tensor.
        scheme: The scheme, for the integer limits.
        least_scale: float32 scalar tensor, the lower limit of the scale; None for no limit.

    Returns:
        The centered integers and their grid.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> constant = centered_constant(ops.array([0.5, 127.0]), get_scheme("int8"))
    >>> constant.values.numpy().tolist(), float(constant.grid.scale)
    ([0.0, 127.0], 1.0)
    """
    grid = weight_grid(values, None, scheme, least_scale)
    zero_point = ops.reshape(ops.convert_to_tensor(grid.zero_point, "int32"), ())
    return OffsetInts(quantize_weights(values, grid), Grid(ops.reshape(grid.scale, ()), zero_point))


def stored(centered: Any, grid: Grid, dtype: str) -> tuple[np.ndarray, Quantization]:
    """Converts centered weights to the integers and the quantization parameters of a constant.

    Args:
        centered: float32 whole numbers, the zero point subtracted.
        grid: One scale for each channel or for all channels, and one zero point for all channels.
        dtype: Type of the constant.

    Returns:
        The integers, and their scales and zero points without an axis.

    Example:
    >>> values, quantization = stored(np.array([-3.0, 9.0]), Grid(0.5, 4), "uint8")
    >>> values, quantization.zero_point
    (array([ 1, 13], dtype=uint8), array([4]))
    """
    scales = np.reshape(ops.convert_to_numpy(grid.scale), -1).astype("float32")
    offset = np.reshape(ops.convert_to_numpy(grid.zero_point), -1).astype("int64")
    values = ops.convert_to_numpy(centered).astype("int64") + offset
    return values.astype(dtype), Quantization(scales, np.resize(offset, scales.shape))
