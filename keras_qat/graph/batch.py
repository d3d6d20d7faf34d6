"""The size of the batch while shapes are computed: a prime number in place of None.

`call` may compute with the size of the batch, as in `ops.reshape(x, (batch * windows, -1, 8))`.
Keras computes all shapes if the size is a number. The sizes that the number divides come from the
batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import keras
import numpy as np
from keras import tree

from keras_qat.graph.graph import Graph, Node, Shape
from keras_qat.graph.keras_internals import shallow_copy

# Primes near each other. Arrays that `call` makes for each sample stay small.
_PRIMES = (509, 521, 523, 541, 547, 557, 563, 569)


@dataclasses.dataclass(frozen=True)
class Samples:
    """A number in the arguments of a call: the size of the batch, times an integer."""

    factor: int


def batch_size(sizes: Iterable[int | None]) -> int:
    """Returns a number for the size of the batch that divides none of the other sizes.

    Args:
        sizes: All sizes that are known, such as those of inputs and weights.

    Example:
    >>> batch_size([4, 8, 509])
    521
    """
    known = [size for size in sizes if size]
    free = (prime for prime in _PRIMES if not any(size % prime == 0 for size in known))
    return next(free, _PRIMES[0])


def factor_of(size: Any, batch: int) -> int | None:
    """Returns how many times a size is the size of the batch, or None if it is another size."""
    is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
    number = int(cast(Any, size)) if is_integer else 0
    return number // batch if number > 0 and number % batch == 0 else None


def with_batch(shape: Shape, batch: int) -> tuple[int | None, ...]:
    """Returns a shape with a number for the size of the batch, if the first size is unknown."""
    return (batch, *shape[1:]) if shape and shape[0] is None else tuple(shape)


def without_batch(shape: Iterable[int | None], batch: int) -> Shape:
    """Returns a shape with None for each size that comes from the batch."""
    return tuple(None if factor_of(size, batch) else size for size in shape)


def forget_batch(graph: Graph, batch: int) -> Graph:
    """Makes the batch unknown in a graph that was made with a number for its size.

    Args:
        graph: The graph.
        batch: The number.

    Returns:
        The graph with None for the size in shapes, and -1 in `ops.reshape`. In the arguments of
        calls `Samples` stands for the size.
    """
    nodes = {name: _of_any_batch(node, batch) for name, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes)


def _of_any_batch(node: Node, batch: int) -> Node:
    shapes = tuple(without_batch(shape, batch) for shape in node.shapes)
    if isinstance(node.head, keras.layers.Layer):

        def samples(leaf: Any) -> Any:
            """Replaces a size that is a multiple of the batch."""
            factor = factor_of(leaf, batch)
            return leaf if factor is None else Samples(factor)

        arguments = tree.map_structure(samples, node.arguments)
        return dataclasses.replace(node, shapes=shapes, arguments=arguments)
    head = _without_batch_size(node.head, shapes[0], batch)
    return dataclasses.replace(node, shapes=shapes, operations=(head,))


def for_one_sample(operation: Any, batch: int) -> Any:
    """Returns an operation for a batch of one sample, if its attributes contain the batch size.

    Args:
        operation: A layer, or an operation of `keras.ops`.
        batch: The number in the attributes that stands for the size of the batch.
    """
    if isinstance(operation, keras.layers.Layer):
        return operation
    return _with_sizes(operation, lambda size: factor_of(size, batch) or size)


def of_batch(leaf: Any, batch: int) -> Any:
    """Returns an argument of a call, with a number for the size of the batch."""
    return leaf.factor * batch if isinstance(leaf, Samples) else leaf


def _without_batch_size(operation: Any, shape: Shape, batch: int) -> Any:
    """Returns an operation whose attributes do not contain the size of the batch."""
    sizes = getattr(operation, "newshape", ())
    if any(factor_of(size, batch) for size in sizes):
        return _copy(operation, {"newshape": tuple(-1 if n is None else n for n in shape)})
    return _with_sizes(operation, lambda size: None if factor_of(size, batch) else size)


def _with_sizes(operation: object, change: Callable[[Any], Any]) -> Any:
    """Returns an operation with the integers in its attributes changed."""
    changed: dict[str, Any] = {}
    attributes: dict[str, Any] = vars(operation)
    for name, value in attributes.items():
        if isinstance(value, int | list | tuple) and not name.startswith("_"):
            made = tree.map_structure(change, value)
            if made != value:
                changed[name] = made
    return _copy(operation, changed) if changed else operation


def _copy(operation: object, changed: Mapping[str, Any]) -> Any:
    copied: object = shallow_copy(operation)
    attributes: dict[str, Any] = vars(copied)
    attributes |= changed
    return copied
