"""Names the operations that a function of `keras.ops` made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree

from keras_qat.graph.graph import unique_name
from keras_qat.graph.keras_internals import producer_of


def name_operations(results: Any, known: Iterable[Any], name: str, taken: set[str]) -> None:
    """Names the operations that made tensors. Keras's names count over the whole process.

    Args:
        results: The tensors, in any structure.
        known: The tensors that they were computed from. The search ends at these.
        name: Name of the last operation. Operations before it get the name and a number.
        taken: Names that are not free. The new names are added.

    Example:
    >>> x = keras.Input((4,))
    >>> y = keras.ops.abs(x)
    >>> name_operations(y, [x], "tf.math.abs", set())
    >>> [operation.name for operation in keras.Model(x, y).operations[1:]]
    ['tf.math.abs']
    """
    ends = {id(tensor) for tensor in tree.flatten(known)}
    for operation in _operations_behind(tree.flatten(results), ends):
        operation.name = unique_name(name, taken) if name in taken else name
        taken.add(operation.name)


def _operations_behind(tensors: list[Any], ends: set[int]) -> Iterator[Any]:
    """Yields each operation once, the last ones first."""
    waiting, seen = list(tensors), set[int]()
    while waiting:
        tensor = waiting.pop(0)
        if id(tensor) in ends:
            continue
        producer = producer_of(tensor)
        if producer is None or id(producer[0]) in seen:
            continue
        operation, call = producer
        seen.add(id(operation))
        if not isinstance(operation, keras.layers.Layer):
            yield operation
            waiting += call.input_tensors
