"""Writes a merge of many tensors as merges of two."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import Shape, unique_name

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
    nodes: list[Node] = []
    taken = set(graph.nodes)
    for node in graph.nodes.values():
        if type(node.head) not in _MERGES or len(node.inputs) <= 2:
            nodes.append(node)
            continue
        merged, shape = node.inputs[0], graph.shape(node.inputs[0])
        for edge in node.inputs[1:-1]:
            name = unique_name(f"{node.name}_partial", taken)
            taken.add(name)
            layer = type(node.head)(name=name)
            shape = tuple(layer.compute_output_shape([shape, graph.shape(edge)]))
            nodes.append(_merge(node, layer, name, (merged, edge), shape))
            merged = Edge(name)
        last = (merged, node.inputs[-1])
        nodes.append(_merge(node, node.head, node.name, last, node.shapes[0]))
    return graph.replace(nodes, {})


def _merge(
    node: Node, layer: keras.layers.Layer, name: str, inputs: tuple[Edge, Edge], shape: Shape
) -> Node:
    return dataclasses.replace(
        node,
        name=name,
        operations=(layer,),
        inputs=inputs,
        arguments=((list(inputs),), {}),
        shapes=(shape,),
    )
