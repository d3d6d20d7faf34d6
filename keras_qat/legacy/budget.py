"""No more weights than the file holds: a wrong number in it must not fill the memory."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

import keras

from keras_qat.errors import InvalidFileError

# What a model has besides its saved weights is small: counters, seeds.
_SLACK = 4096
_LARGEST_TENSOR = 2**36
_LOCK = threading.RLock()


@contextlib.contextmanager
def weight_budget(elements: int) -> Iterator[None]:
    """Lets layers make no more numbers than a file has for them.

    A damaged `units` would otherwise be a matrix that no machine can hold: Keras makes the
    weights of a model before anything looks at the file's.

    Args:
        elements: How many numbers the file has.

    Raises:
        InvalidFileError: In the block, from the layer that goes beyond.
    """
    original, left = keras.layers.Layer.add_weight, elements + _SLACK

    def add_weight(self, shape=None, *args, **kwargs):
        nonlocal left
        left -= math.prod(shape) if isinstance(shape, tuple | list) and None not in shape else 0
        if left < 0 and shape is not None:
            raise InvalidFileError(
                "Its layers have more weights than the file holds.",
                layer=self.name,
                received=f"shape {tuple(shape)}",
                expected=f"at most {elements:,} numbers in all",
            )
        return original(self, shape, *args, **kwargs)

    with _LOCK:  # the class is everybody's
        keras.layers.Layer.add_weight = add_weight
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = original


def check_sizes(name: Any, tensors: Any) -> None:
    """Raises if a tensor is so large that no model has it.

    Args:
        name: Name of the layer that made it.
        tensors: Symbolic tensors, in any structure.

    Raises:
        InvalidFileError: If one is.
    """
    for tensor in keras.tree.flatten(tensors):
        shape = tuple(getattr(tensor, "shape", ()))
        if math.prod(size for size in shape if size is not None) > _LARGEST_TENSOR:
            raise InvalidFileError(
                "A tensor is too large to be true: the file is damaged.",
                layer=str(name),
                received=f"shape {shape}",
            )
