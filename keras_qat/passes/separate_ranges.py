"""Separates tensors with a prescribed range from tensors that must share another range."""

from __future__ import annotations

import collections
import dataclasses

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import Requantize
from keras_qat.layers.models.range_groups import (
    fixed_parameters,
    is_contradictory,
    is_shared,
    output_specification,
    range_groups,
)
from keras_qat.scheme import Scheme


def separate_ranges(graph: Graph, scheme: Scheme) -> Graph:
    """Puts a `Requantize` where a prescribed range would have to be shared with other tensors.

    Matches: the output of a sigmoid, a softmax or another layer whose kernel prescribes its
    range, if a consumer needs one range for several tensors: a concatenation, a maximum, or a
    layer that is called more than once.
    Builds: one `Requantize` after it for all these consumers. Others take the tensor itself.
    Why: LiteRT's CONCATENATION copies integers, and cannot take 1/256 beside another scale.

    Args:
        graph: A graph in which each node but the inputs is one quantized layer.
        scheme: The scheme.

    Returns:
        A graph whose tensors can be linked, or the graph itself if it needs no `Requantize`.
    """
    groups = range_groups(graph)
    edges = [
        Edge(node.name)
        for node in graph.nodes.values()
        if fixed_parameters(node) is not None and is_contradictory(graph, groups[Edge(node.name)])
    ]
    if not edges:
        return graph
    calls = collections.Counter(id(node.head) for node in graph.nodes.values())
    tied = {
        node.name
        for node in graph.nodes.values()
        if _is_tied(node) or (output_specification(node) is not None and calls[id(node.head)] > 1)
    }
    consumers = graph.consumers()
    made: dict[Edge, Edge] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        nodes[node.name] = node.rewired(made) if node.name in tied else node
        edge = Edge(node.name)
        if edge in edges and any(taker.name in tied for taker in consumers.get(edge, ())):
            copy = _requantized(node, scheme, unique_name(f"{node.name}_requantize", graph.nodes))
            nodes[copy.name] = copy
            made[edge] = Edge(copy.name)
    return dataclasses.replace(graph, nodes=nodes)


def _is_tied(node: Node) -> bool:
    """Returns whether a call needs one range for several of its tensors."""
    is_integer = not node.is_input and node.head.scheme is not None
    return is_integer and (is_shared(node) or node.head.shares_inputs)


def _requantized(node: Node, scheme: Scheme, name: str) -> Node:
    layer = Requantize(name=name, dtype="float32", scheme=scheme)
    return Node.call(layer, name, Edge(node.name), node.shapes[0]).made_of(node)
