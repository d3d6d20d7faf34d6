"""Inserts conversions between layers whose activations have different widths."""

from __future__ import annotations

import dataclasses

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import Requantize


def convert_widths(graph: Graph) -> Graph:
    """Puts a `Requantize` between layers whose activations have different widths.

    Matches: a tensor of a layer with 8-bit activations that a layer with 16-bit activations takes,
    and the reverse.
    Builds: one `Requantize` for all layers of a width that take the tensor: one QUANTIZE.
    Why: the operands of an operator have one type.

    Args:
        graph: A graph in which each node but the inputs is one quantized layer, or a float layer.

    Returns:
        The graph; the same object if all layers have activations of one width.
    """
    dtypes = {name: _dtype(node) for name, node in graph.nodes.items()}
    if len({dtype for dtype in dtypes.values() if dtype}) < 2:
        return graph
    nodes: dict[str, Node] = {}
    made: dict[tuple[Edge, str], Edge] = {}
    for node in graph.nodes.values():
        own, mapping = dtypes[node.name], {}
        for edge in node.inputs:
            other = dtypes[edge.node]
            if not own or not other or own == other or graph.is_plain(edge):
                continue
            if (edge, own) not in made:
                copy = _converted(graph, edge, node, own)
                nodes[copy.name] = copy
                made[edge, own] = Edge(copy.name)
            mapping[edge] = made[edge, own]
        nodes[node.name] = node.rewired(mapping)
    return dataclasses.replace(graph, nodes=nodes)


def _dtype(node: Node) -> str:
    """Returns the type of a node's integers; "" for an input and for a layer in float."""
    scheme = None if node.is_input else node.head.scheme
    return "" if scheme is None else scheme.dtype


def _converted(graph: Graph, edge: Edge, taker: Node, dtype: str) -> Node:
    name = unique_name(f"{edge.node}_{dtype}", graph.nodes)
    layer = Requantize(name=name, dtype="float32", scheme=taker.head.scheme.name)
    return Node.call(layer, name, edge, graph.shape(edge)).made_of(graph.nodes[edge.node])
