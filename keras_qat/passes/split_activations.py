"""Makes the `activation` argument of a layer an operation of its own."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import find_slice
from keras_qat.layers.activation_names import function_name


def split_activations(graph: Graph) -> Graph:
    """Writes `Conv2D(activation="relu")` as a linear `Conv2D` and an `Activation`.

    Matches: a layer with a kernel whose `activation` is not linear.
    Builds: the same layer, linear, and an `Activation` behind it.
    Why: there is one way to write an activation from here on; `fuse_activations` puts it back
    where LiteRT can fuse it, and only there.

    Args:
        graph: The graph.

    Returns:
        A graph in which layers with a kernel are linear.
    """
    nodes: list[Node] = []
    mapping: dict[Edge, Edge] = {}
    taken = set(graph.nodes)
    split: dict[int, keras.layers.Layer] = {}
    for node in graph.nodes.values():
        if not _has_activation(node):
            nodes.append(node)
            continue
        # A shared layer keeps sharing: one activation layer for all its calls.
        label = f"{node.head.name}_{function_name(node.head.activation)}"
        layer = split.setdefault(
            id(node.head), keras.layers.Activation(node.head.activation, name=label)
        )
        name = unique_name(label, taken)
        taken.add(name)
        edge = Edge(node.name)
        nodes.append(dataclasses.replace(node, activation_split=True))
        nodes.append(Node(name, (layer,), (edge,), ((edge,), {}), node.shapes, node.dtypes))
        mapping[edge] = Edge(name)
    return graph.replace(nodes, mapping, unchanged={edge.node for edge in mapping.values()})


def _has_activation(node: Node) -> bool:
    if node.activation_split or node.is_input:
        return False
    entry = find_slice(node.operations)
    if entry is None or not entry.layer.takes_activation:
        return False
    return function_name(node.head.activation) != "linear"
