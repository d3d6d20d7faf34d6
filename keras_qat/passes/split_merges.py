"""Writes a merge of many tensors as merges of two."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

_MERGES = (
    keras.layers.Add,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
)


def split_merges(graph: Graph) -> Graph:
    """Writes `Add()([a, b, c])` as `(a + b) + c`.

    Matches: a `keras.layers.Add`, `Multiply`, `Maximum` or `Minimum` of more than two tensors.
    Builds: a chain of merges of two, the last one under the old name.
    Why: LiteRT's operators take two tensors.

    Args:
        graph: The graph.

    Returns:
        A graph in which each merge takes two tensors.
    """
    return replace_nodes(graph, _split)


def is_merge_of_many(node: Node) -> bool:
    """Returns whether a node merges more than two tensors."""
    return type(node.head) in _MERGES and len(node.inputs) > 2


def _split(node: Node, rewriting: Rewriting) -> Replacement | None:
    if not is_merge_of_many(node):
        return None
    merged, shape = node.inputs[0], rewriting.shape(node.inputs[0])
    nodes = []
    for edge in node.inputs[1:-1]:
        name = rewriting.free_name(f"{node.name}_partial")
        layer = type(node.head)(name=name, dtype="float32")
        shape = tuple(layer.compute_output_shape([shape, rewriting.shape(edge)]))
        part = dataclasses.replace(node, name=name, operations=(layer,), shapes=(shape,))
        nodes.append(_of_two(part, merged, edge))
        merged = Edge(name)
    return Replacement([*nodes, _of_two(node, merged, node.inputs[-1])])


def _of_two(node: Node, a: Edge, b: Edge) -> Node:
    """Returns the node with two inputs."""
    return dataclasses.replace(node, inputs=(a, b), arguments=(([a, b],), {}))
