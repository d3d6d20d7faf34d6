"""Moves reshapes behind the biases and activations that a layer before them could take up."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from keras import tree

from keras_qat.graph import Edge, Graph, Node, Parameter, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.layers.activation_names import FUSED
from keras_qat.layers.binary import value_of

_ARITHMETIC = operation_named("Add", "Subtract", "Multiply", "TrueDivide", "Divide")
_RESHAPE = operation_named("Reshape", "Squeeze", "ExpandDims")


def move_reshapes(graph: Graph) -> Graph:
    """Writes `ops.reshape(x) + bias` as `ops.reshape(x + bias)`.

    Matches: arithmetic with a constant or a variable that has a number for each element of the
    axes that the last axis was split into, or a single one, and ReLU and ReLU6, behind a reshape,
    `squeeze` or `expand_dims` that has no other consumer.
    Builds: the same operations in the other order, the constant as a vector.
    Why: a `Dense` before the reshape, as of an `EinsumDense`, takes up what follows directly.

    Args:
        graph: The graph.

    Returns:
        A graph in which such reshapes come last.
    """
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    nodes = dict(graph.nodes)
    for name in graph.nodes:
        node = nodes[name]
        before = nodes[node.inputs[0].node] if len(node.inputs) == 1 else None
        if before is None or not _RESHAPE(before.head) or len(before.inputs) != 1:
            continue
        edge = Edge(before.name)
        if edge in outputs or len(consumers[edge]) != 1 or not node.is_like(before):
            continue
        source = nodes[before.inputs[0].node].shapes[before.inputs[0].index]
        arguments = _moved(node, source, before.shapes[0])
        if arguments is not None:
            # Under each other's names, which are those of the tensors: both keep their values.
            arguments = tree.map_structure(
                lambda leaf, x=before.inputs[0]: x if isinstance(leaf, Edge) else leaf, arguments
            )
            nodes[before.name] = dataclasses.replace(
                node,
                name=before.name,
                inputs=before.inputs,
                arguments=arguments,
                shapes=(source,),
            ).made_of(node)
            moved = dataclasses.replace(before, name=name).made_of(before)
            nodes[name] = moved.rewired({before.inputs[0]: edge})
    return graph.replace(nodes.values(), {})


def _moved(node: Node, source: Shape, shape: Shape) -> Any:
    """The arguments before the reshape; None where the operation has to stay behind it."""
    if FUSED(node.head):
        return node.arguments
    if not _ARITHMETIC(node.head) or node.shapes[0] != shape:
        return None
    leaves = [*node.arguments[0], *node.arguments[1].values()]
    constants = [leaf for leaf in leaves if not isinstance(leaf, Edge)]
    if len(leaves) != 2 or len(constants) != 1:
        return None
    vector = _vector(constants[0], source, shape)
    if vector is None:
        return None
    return tree.map_structure(
        lambda leaf: leaf if isinstance(leaf, Edge) else vector, node.arguments
    )


def _vector(leaf: Any, source: Shape, shape: Shape) -> Any:
    """A constant for the last axis of the source, of one for the axes that it was split into."""
    value = value_of(leaf)
    if value.size == 1:
        return leaf if value.ndim == 0 else _with_value(leaf, value.reshape(()))
    lead = len(source) - 1
    split = tuple(size for size in shape[lead:] if size is not None)
    if len(shape) != lead + len(split) or not split or source[:-1] != shape[:lead]:
        return None
    sizes = (1,) * (len(shape) - value.ndim) + value.shape
    trains = getattr(leaf, "trainable", False)
    if any(size != 1 for size in sizes[:lead]) or (trains and sizes[lead:] != split):
        return None
    values = np.broadcast_to(value.reshape(sizes[lead:]), split).reshape(math.prod(split))
    return _with_value(leaf, values)


def _with_value(leaf: Any, value: np.ndarray) -> Any:
    if isinstance(leaf, Parameter):
        return dataclasses.replace(leaf, value=value)
    return Parameter(value, bool(getattr(leaf, "trainable", False)))
