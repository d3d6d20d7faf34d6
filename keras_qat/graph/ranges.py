"""Finds the tensors that must share quantization parameters."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, cast

from keras_qat.graph.graph import Edge, Graph, Node


class RangeRules(Protocol):
    """The properties of a layer that decide about the quantization parameters of its output."""

    shares_range: bool
    scheme: Any


@dataclasses.dataclass(frozen=True)
class RangeGroup:
    """Tensors with one scale and one zero point.

    Attributes:
        edges: The tensors, in topological order.
    """

    edges: tuple[Edge, ...]


def range_groups(graph: Graph) -> dict[Edge, RangeGroup]:
    """Groups the tensors of a graph that must have the same quantization parameters.

    An operator that only moves or selects values (`shares_range`) shares the parameters of its
    output with its inputs, since LiteRT's kernels copy the integers. A layer that is called more
    than once has one set of integer weights. Each of its inputs and outputs therefore has one set
    of parameters over all calls. Float layers put no tensors into one group.

    Args:
        graph: A graph in which each node but the inputs is a single quantized layer.

    Returns:
        The group of each tensor.
    """
    parent = {
        Edge(node.name, i): Edge(node.name, i)
        for node in graph.nodes.values()
        for i in range(len(node.shapes))
    }

    def root(edge: Edge) -> Edge:
        while parent[edge] != edge:
            edge = parent[edge]
        return edge

    first_call: dict[int, Node] = {}
    for node in graph.nodes.values():
        if node.is_input or cast(RangeRules, node.head).scheme is None:
            continue
        first = first_call.setdefault(id(node.head), node)
        for mine, theirs in zip(node.inputs, first.inputs, strict=True):
            parent[root(mine)] = root(theirs)
        parent[root(Edge(node.name))] = root(Edge(first.name))
        if cast(RangeRules, node.head).shares_range:
            for edge in node.inputs:
                parent[root(Edge(node.name))] = root(edge)
    return _collect(parent, root)


def _collect(parent: dict[Edge, Edge], root: Any) -> dict[Edge, RangeGroup]:
    members: dict[Edge, list[Edge]] = {}
    for edge in parent:
        members.setdefault(root(edge), []).append(edge)
    groups = {top: RangeGroup(tuple(edges)) for top, edges in members.items()}
    return {edge: groups[root(edge)] for edge in parent}
