"""Conversions between real values and the integers of a file's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.layers.core.rules import rounding_rule


def to_integers(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Quantizes real values as LiteRT's QUANTIZE does: half away from zero, then clipped.

    Args:
        values: Real values.
        tensor: `TensorDetails` of a quantized tensor.

    Returns:
        An array of the tensor's dtype.
    """
    steps = np.asarray(values, "float32") / np.float32(tensor.scale[0])
    whole = np.trunc(steps)
    rounded = whole + np.where(np.abs(steps - whole) >= 0.5, np.sign(steps), 0)
    limits = np.iinfo(tensor.dtype)
    return np.clip(rounded + tensor.zero_point[0], limits.min, limits.max).astype(tensor.dtype)


def to_file_input(values: np.ndarray, tensor: Any, target: str) -> np.ndarray:
    """Converts real values to the element type of an input of the file.

    Args:
        values: Real values.
        tensor: `TensorDetails` of the input.
        target: The target of the model, whose QUANTIZE decides how values are rounded.

    Returns:
        An array of the input's dtype.
    """
    is_quantized = bool(tensor.scale.size)
    return quantized(values, tensor, target) if is_quantized else values.astype(tensor.dtype)


def quantized(values: np.ndarray, tensor: Any, target: str) -> np.ndarray:
    """Quantizes real values as the QUANTIZE of a target does.

    Args:
        values: Real values.
        tensor: `TensorDetails` of a quantized tensor.
        target: Name of the target.

    Returns:
        An array of the tensor's dtype.
    """
    quantize, limits = rounding_rule(target), np.iinfo(tensor.dtype)
    grid = np.float32(tensor.scale[0]), np.int32(tensor.zero_point[0])
    q = quantize(values.astype("float32"), *grid, limits.min, limits.max)
    return ops.convert_to_numpy(q).astype(tensor.dtype)
