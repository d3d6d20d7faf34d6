"""Encodings of ids, written as comparisons."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError


def one_hot(operation: Any, ids: Any) -> Any:
    """Writes `ops.one_hot` as a comparison of each id with all classes.

    An id that is no class gives zeros, as in Keras. LiteRT's ONE_HOT would do the same, but
    microcontrollers lack it.

    Args:
        operation: The operation, with `num_classes`, `axis` and `dtype`.
        ids: Symbolic tensor of integers.

    Returns:
        Ones and zeros, or booleans.

    Raises:
        UnsupportedLayerError: If the ids are real values, or the result is integers.
    """
    dtype = keras.backend.standardize_dtype(operation.dtype)
    _check(operation.name, ids, dtype)
    axis = operation.axis % (len(ids.shape) + 1)
    shape = [1] * (len(ids.shape) + 1)
    shape[axis] = operation.num_classes
    classes = np.arange(operation.num_classes, dtype="int32").reshape(shape)
    found = ops.equal(ops.expand_dims(ids, axis), classes)
    return found if dtype == "bool" else ops.cast(found, "float32")


def multi_hot(operation: Any, ids: Any) -> Any:
    """Writes `ops.multi_hot` as the maximum of the encodings of single ids.

    Args:
        operation: The operation, with `num_classes`, `axis` and `dtype`.
        ids: Symbolic tensor of integers.

    Returns:
        Ones and zeros.

    Raises:
        UnsupportedLayerError: If the ids are real values, or the result is not real values.
    """
    dtype = keras.backend.standardize_dtype(operation.dtype)
    _check(operation.name, ids, "int32" if dtype == "bool" else dtype)
    return ops.max(one_hot(operation, ids), axis=1)


def _check(name: str, ids: Any, dtype: str) -> None:
    """Raises if ids are real values, or their encodings integers."""
    own = keras.backend.standardize_dtype(ids.dtype)
    if "int" in own and "int" not in dtype:
        return
    raise UnsupportedLayerError(
        "Ids are encoded as real values, and must be integers.",
        layer=name,
        received=f"ids of type {own}, encoded as {dtype}",
        expected="ids of type int32, encoded as float32",
        fix='Make the ids an input of integers, `keras.Input(shape, dtype="int32")`.',
    )
