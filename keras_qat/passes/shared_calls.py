"""Gives two calls of a shared layer the same operations and weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_qat.graph import Edge, Graph, Node, Parameter


def with_operations_of(graph: Graph, first: Graph) -> Graph | None:
    """Returns the graph of a call of a layer, with the operations and weights of another call.

    Args:
        graph: The operations of the call.
        first: The operations of another call of the same layer.

    Returns:
        The graph; None if the calls do not consist of the same operations, apart from shapes.
    """
    pairs = list(zip(graph.nodes.values(), first.nodes.values(), strict=False))
    names = {other.name: node.name for node, other in pairs}
    nodes = {node.name: _with_operations_of(node, other, names) for node, other in pairs}
    is_alike = len(graph.nodes) == len(first.nodes) and None not in nodes.values()
    return dataclasses.replace(graph, nodes=nodes) if is_alike else None


def _with_operations_of(node: Node, other: Node, names: dict[str, str]) -> Node | None:
    if node.is_input or other.is_input:
        return node if node.is_input and other.is_input else None
    leaves, others = (tree.flatten_with_path(each.arguments) for each in (node, other))
    is_alike = len(leaves) == len(others) and all(
        path == path_of_other and _is_alike(leaf, leaf_of_other, names)
        for (path, leaf), (path_of_other, leaf_of_other) in zip(leaves, others, strict=True)
    )
    ranks, ranks_of_other = ([len(shape) for shape in each.shapes] for each in (node, other))
    if ranks != ranks_of_other or not is_alike or not _are_equal(node.operations, other.operations):
        return None
    kept = [
        leaf_of_other if isinstance(leaf_of_other, Parameter) else leaf
        for (_, leaf), (_, leaf_of_other) in zip(leaves, others, strict=True)
    ]
    arguments = tree.pack_sequence_as(node.arguments, kept)
    return dataclasses.replace(node, operations=other.operations, arguments=arguments)


def _is_alike(leaf: Any, other: Any, names: dict[str, str]) -> bool:
    """Returns whether arguments are the same tensor of both graphs, or the same constant."""
    if isinstance(leaf, Edge) and isinstance(other, Edge):
        return names[other.node] == leaf.node and other.index == leaf.index
    if isinstance(leaf, Parameter) and isinstance(other, Parameter):
        is_same = [*map(id, leaf.variables)] == [*map(id, other.variables)]
        return is_same and leaf.samples == other.samples and np.array_equal(leaf.value, other.value)
    return type(leaf) is type(other) and repr(leaf) == repr(other)


def _are_equal(operations: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Returns whether operations are the same layers, or operations with equal attributes."""
    return len(operations) == len(others) and all(
        a is b or (not isinstance(a, keras.layers.Layer) and _attributes(a) == _attributes(b))
        for a, b in zip(operations, others, strict=True)
    )


def _attributes(operation: object) -> tuple[type, dict[str, str]]:
    attributes: dict[str, Any] = vars(operation)
    public = {k: repr(v) for k, v in attributes.items() if not k.startswith("_") and k != "name"}
    return type(operation), public
