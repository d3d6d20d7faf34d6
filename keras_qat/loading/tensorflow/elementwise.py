"""Element-wise TensorFlow functions, written with `keras.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

Function = Callable[..., Any]


def as_tensors(*values: Any) -> list[Any]:
    """Replaces lists of numbers by arrays. A file has constant tensors as lists.

    Args:
        *values: Tensors, numbers and lists. The arrays get the dtype of the first tensor. Without
            a tensor, lists are the sizes of a shape and are not changed.

    Example:
    >>> x = np.zeros((2, 3), "float32")
    >>> as_tensors(x, [1, 2, 3])[1]
    array([1., 2., 3.], dtype=float32)
    """
    dtypes = [value.dtype for value in values if hasattr(value, "dtype")]
    if not dtypes:
        return list(values)
    dtype = keras.backend.standardize_dtype(dtypes[0])
    return [np.asarray(value, dtype) if isinstance(value, list) else value for value in values]


def _unary(function: Function) -> Function:
    """Wraps a function of one tensor with TensorFlow's parameters."""
    return lambda x, name=None: function(x)


def _binary(function: Function) -> Function:
    return lambda x, y, name=None: function(*as_tensors(x, y))


def _clip(t, clip_value_min, clip_value_max, name=None):
    t, low, high = as_tensors(t, clip_value_min, clip_value_max)
    if isinstance(low, int | float) and isinstance(high, int | float):
        return ops.clip(t, low, high)
    return ops.maximum(ops.minimum(t, high), low)


def _where(condition, x=None, y=None, name=None):
    return ops.where(condition, *as_tensors(x, y))


# Names in the file to functions.
ELEMENTWISE: dict[str, Function] = {
    "__operators__.add": _binary(ops.add),
    "clip_by_value": _clip,
    "math.abs": _unary(ops.absolute),
    "math.add": _binary(ops.add),
    "math.ceil": _unary(ops.ceil),
    "math.cos": _unary(ops.cos),
    "math.divide": _binary(ops.divide),
    "math.divide_no_nan": _binary(ops.divide_no_nan),
    "math.equal": _binary(ops.equal),
    "math.erf": _unary(ops.erf),
    "math.exp": _unary(ops.exp),
    "math.expm1": _unary(ops.expm1),
    "math.floor": _unary(ops.floor),
    "math.floordiv": _binary(ops.floor_divide),
    "math.floormod": _binary(ops.mod),
    "math.greater": _binary(ops.greater),
    "math.greater_equal": _binary(ops.greater_equal),
    "math.less": _binary(ops.less),
    "math.less_equal": _binary(ops.less_equal),
    "math.log": _unary(ops.log),
    "math.log1p": _unary(ops.log1p),
    "math.log_sigmoid": _unary(ops.log_sigmoid),
    "math.logical_and": _binary(ops.logical_and),
    "math.logical_not": _unary(ops.logical_not),
    "math.logical_or": _binary(ops.logical_or),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.multiply": _binary(ops.multiply),
    "math.negative": _unary(ops.negative),
    "math.not_equal": _binary(ops.not_equal),
    "math.pow": _binary(ops.power),
    "math.reciprocal": _unary(ops.reciprocal),
    "math.round": _unary(ops.round),
    "math.rsqrt": _unary(ops.rsqrt),
    "math.sigmoid": _unary(ops.sigmoid),
    "math.sign": _unary(ops.sign),
    "math.sin": _unary(ops.sin),
    "math.sqrt": _unary(ops.sqrt),
    "math.square": _unary(ops.square),
    "math.squared_difference": lambda x, y, name=None: ops.square(ops.subtract(*as_tensors(x, y))),
    "math.subtract": _binary(ops.subtract),
    "math.tanh": _unary(ops.tanh),
    "math.truediv": _binary(ops.true_divide),
    "where": _where,
}
