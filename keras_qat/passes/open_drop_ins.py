"""Opens the layers of this package that a model was defined with."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import map_edges
from keras_qat.layers.channel_affine import ChannelAffine
from keras_qat.layers.drop_in import DropIn
from keras_qat.passes.rewriting import calls_in_a_row


def open_drop_ins(graph: Graph) -> Graph:
    """Replaces drop-in layers by the Keras layers in a row that they stand for.

    Matches: a float layer of `keras_qat.layers`, such as `QConv2D(batch_norm=True)`.
    Builds: `Conv2D`, `BatchNormalization` and `Activation`, with its weights; what is behind the
    last one is behind the layer.
    Why: a drop-in takes any activation, LiteRT fuses few; and what follows a drop-in may have to
    be fused too. So both ways to write a model become the same file.

    Args:
        graph: The graph.

    Returns:
        A graph of Keras layers; the graph itself if there were no drop-in layers.
    """
    opened: dict[int, list[Any]] = {}
    for node in graph.nodes.values():
        if id(node.head) not in opened and _is_opened(node.head):
            opened[id(node.head)] = node.head.to_keras() or []
    if not any(opened.values()):
        return graph
    nodes: list[Node] = []
    mapping: dict[Edge, Edge] = {}
    taken = set(graph.nodes)
    for node in graph.nodes.values():
        layers = opened.get(id(node.head))
        node = node.rewired(mapping)
        nodes += calls_in_a_row(graph, node, layers, mapping, taken) if layers else [node]
    outputs = map_edges(lambda edge: mapping.get(edge, edge), graph.outputs)
    named = {node.name: node for node in nodes}
    return dataclasses.replace(graph, nodes=named, outputs=outputs)


def _is_opened(operation: Any) -> bool:
    """Whether this is a float drop-in layer, not one that only a rewrite makes."""
    if not isinstance(operation, DropIn) or not operation.is_opened:
        return False
    if not type(operation).__module__.startswith("keras_qat."):
        return False  # what a subclass computes is its own
    norm = getattr(operation, "batch_normalization", None)
    return getattr(operation, "scheme", None) is None and not isinstance(norm, ChannelAffine)
