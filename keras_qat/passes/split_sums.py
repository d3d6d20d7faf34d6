"""Writes a sum of many tensors as sums of two."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name


def split_sums(graph: Graph) -> Graph:
    """Writes `Add()([a, b, c])` as `(a + b) + c`.

    Matches: a `keras.layers.Add` of more than two tensors.
    Builds: a chain of additions of two, the last one under the old name.
    Why: LiteRT's ADD takes two tensors.

    Args:
        graph: The graph.

    Returns:
        A graph in which each addition takes two tensors.
    """
    nodes: list[Node] = []
    taken = set(graph.nodes)
    for node in graph.nodes.values():
        if type(node.head) is not keras.layers.Add or len(node.inputs) <= 2:
            nodes.append(node)
            continue
        total = node.inputs[0]
        for edge in node.inputs[1:-1]:
            name = unique_name(f"{node.name}_partial", taken)
            taken.add(name)
            nodes.append(_addition(node, keras.layers.Add(name=name), name, (total, edge)))
            total = Edge(name)
        nodes.append(_addition(node, node.head, node.name, (total, node.inputs[-1])))
    return graph.replace(nodes, {})


def _addition(node: Node, layer: keras.layers.Layer, name: str, inputs: tuple[Edge, Edge]) -> Node:
    return dataclasses.replace(
        node, name=name, operations=(layer,), inputs=inputs, arguments=((list(inputs),), {})
    )
