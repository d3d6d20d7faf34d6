"""Writes a sum of many tensors as sums of two."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import Shape, unique_name


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
        total, shape = node.inputs[0], graph.shape(node.inputs[0])
        for edge in node.inputs[1:-1]:
            name = unique_name(f"{node.name}_partial", taken)
            taken.add(name)
            layer = keras.layers.Add(name=name)
            shape = tuple(layer.compute_output_shape([shape, graph.shape(edge)]))
            nodes.append(_addition(node, layer, name, (total, edge), shape))
            total = Edge(name)
        last = (total, node.inputs[-1])
        nodes.append(_addition(node, node.head, node.name, last, node.shapes[0]))
    return graph.replace(nodes, {})


def _addition(
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
