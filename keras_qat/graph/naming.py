"""Names for the operations that a function of `keras.ops` made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree

from keras_qat.graph.graph import unique_name


def name_operations(results: Any, known: Iterable[Any], name: str, taken: set[str]) -> None:
    """Names the operations that made tensors: Keras counts them over the whole process.

    Args:
        results: The tensors, in any structure.
        known: The tensors that they were made of, where the search ends.
        name: Name of the last operation; those before it get it with a number.
        taken: Names that are not free. The new ones are added.

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
    waiting, seen = list(tensors), set()
    while waiting:
        tensor = waiting.pop(0)
        if not isinstance(tensor, keras.KerasTensor) or id(tensor) in ends:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or id(history.operation) in seen:
            continue
        seen.add(id(history.operation))
        if not isinstance(history.operation, keras.layers.Layer):
            yield history.operation
            waiting += history.operation._inbound_nodes[history.node_index].input_tensors
