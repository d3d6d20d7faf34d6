"""Bounds on the memory that a file can request, so that a damaged number cannot fill memory."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.errors import InvalidFileError
from keras_qat.graph.keras_internals import deferred_values

# Keras builds some layers more than once: a `Bidirectional` makes three copies of its layer and
# saves two. Layers may also compute some weights instead of saving them.
_COPIES, _UNSAVED = 4, 2**24
_LARGEST_TENSOR = 2**36


def check_budget(elements: int, make: Callable[[], Any]) -> None:
    """Raises if a model would have many more weights than its file.

    Keras creates the weights of a model before it reads the weights of the file. A damaged `units`
    would create a matrix larger than memory. Here the model is created in a `keras.StatelessScope`,
    where a variable has a shape but no value.

    Args:
        elements: The number of elements of all arrays in the file.
        make: Creates the model. Its exceptions are ignored here. The caller creates the model
            again, with values, and gets them then.

    Raises:
        InvalidFileError: If the variables have more than four times the numbers of the file, and
            16 million more.

    Example:
    >>> make = lambda: keras.Sequential([keras.Input((10**6,)), keras.layers.Dense(10**6)])
    >>> check_budget(1000, make)
    Traceback (most recent call last):
    keras_qat.errors.InvalidFileError: Its layers have more weights than the file holds. ...
    """
    with deferred_values() as variables, contextlib.suppress(Exception):
        make()
    most = _COPIES * elements + _UNSAVED
    if sum(math.prod(variable.shape) for variable in variables) > most:
        largest = max(variables, key=lambda variable: math.prod(variable.shape))
        raise InvalidFileError(
            "Its layers have more weights than the file holds.",
            layer=largest.path.rpartition("/")[0] or largest.name,
            received=f"{largest.name} of shape {tuple(largest.shape)}",
            expected=f"at most {most:,} numbers in all",
        )


def without_state(config: Any) -> Any:
    """Returns the configuration of a model without parts that create values immediately.

    Args:
        config: The configuration, as read from JSON. It is not changed.
    """

    def strip(part: dict[str, Any]) -> dict[str, Any]:
        part.pop("compile_config", None)
        return {**part, "stateful": False} if "stateful" in part else part

    return json.loads(json.dumps(config), object_hook=strip)


def check_sizes(name: Any, tensors: Any) -> None:
    """Raises if a tensor is too large for any real model.

    Args:
        name: Name of the layer that made the tensors.
        tensors: Symbolic tensors, in any structure.

    Raises:
        InvalidFileError: If a tensor is too large.
    """
    for tensor in keras.tree.flatten(tensors):
        shape = tuple(getattr(tensor, "shape", ()))
        if math.prod(size for size in shape if size is not None) > _LARGEST_TENSOR:
            raise InvalidFileError(
                "The size of a tensor is impossible: the file is damaged.",
                layer=str(name),
                received=f"shape {shape}",
            )
