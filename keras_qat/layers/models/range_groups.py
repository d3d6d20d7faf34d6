"""Finds the tensors that must share quantization parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_qat.graph import Edge, Graph, Node
from keras_qat.quantizers import Fixed, FixedParameters, Shared, Specification


@dataclasses.dataclass(frozen=True)
class RangeGroup:
    """Tensors with one scale and one zero point.

    Attributes:
        edges: The tensors, in topological order.
    """

    edges: tuple[Edge, ...]


def range_groups(graph: Graph) -> dict[Edge, RangeGroup]:
    """Groups the tensors of a graph that must have the same quantization parameters.

    An operator that only moves or selects values has a `Shared` output: it has the parameters of
    the inputs, since LiteRT's kernels copy the integers. A layer that is called more than once has
    one set of integer weights. Each of its inputs and outputs therefore has one set of parameters
    over all calls. A state has the parameters of the next state. Float layers put no tensors into
    one group.

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
        """Returns the tensor that stands for the group of a tensor."""
        while parent[edge] != edge:
            edge = parent[edge]
        return edge

    first_call: dict[int, Node] = {}
    for node in graph.nodes.values():
        if node.is_input or node.head.scheme is None:
            continue
        first = first_call.setdefault(id(node.head), node)
        for mine, theirs in zip(node.inputs, first.inputs, strict=True):
            parent[root(mine)] = root(theirs)
        parent[root(Edge(node.name))] = root(Edge(first.name))
        tied = [edge for edge in _tied(node) if not graph.is_plain(edge)]
        for edge in tied[1:]:
            parent[root(edge)] = root(tied[0])
    for edge, state in _states(graph):
        parent[root(edge)] = root(state)
    return _collect(parent, root)


def _states(graph: Graph) -> Iterator[tuple[Edge, Edge]]:
    """Yields each tensor that is a state, and the tensor that is the next state."""
    layers = {node.head.name: node for node in graph.nodes.values()}
    for node in graph.nodes.values():
        source = layers.get(getattr(node.head, "state_of", None) or "")
        if source is not None:
            yield Edge(node.name), Edge(source.name)


def _tied(node: Node) -> tuple[Edge, ...]:
    """Returns the tensors of one call that must have the same parameters."""
    if is_shared(node):
        return Edge(node.name), *node.inputs
    return node.inputs if node.head.shares_inputs else ()


def _collect(parent: dict[Edge, Edge], root: Any) -> dict[Edge, RangeGroup]:
    members: dict[Edge, list[Edge]] = {}
    for edge in parent:
        members.setdefault(root(edge), []).append(edge)
    groups = {top: RangeGroup(tuple(edges)) for top, edges in members.items()}
    return {edge: groups[root(edge)] for edge in parent}


def output_specification(node: Node) -> Specification | None:
    """Returns the specification of a node's output.

    Args:
        node: An input, or the call of a layer.

    Returns:
        None for an input of the model, for a layer in float, and for plain integers or booleans.
    """
    if node.is_input or node.head.scheme is None:
        return None
    return node.head.specifications()["output"]


def is_shared(node: Node) -> bool:
    """Returns whether a node's output has the quantization parameters of its inputs.

    Args:
        node: The call of a layer; in float the layer would have them if it was quantized.
    """
    return isinstance(node.head.output_specification, Shared)


def fixed_parameters(node: Node) -> FixedParameters | None:
    """Returns the quantization parameters of a node's output if they are prescribed, else None."""
    found = output_specification(node)
    return found.parameters(node.head.scheme) if isinstance(found, Fixed) else None


def makers(graph: Graph, group: RangeGroup) -> list[Node]:
    """Returns the nodes that compute values of a group, or add some to the values that they move.

    Args:
        graph: The graph.
        group: The group.

    Returns:
        One call of each layer.
    """
    found: dict[int, Node] = {}
    for edge in group.edges:
        node = graph.nodes[edge.node]
        own = output_specification(node)
        if own is not None and (not isinstance(own, Shared) or own.observed is not None):
            found.setdefault(id(node.head), node)
    return list(found.values())


def is_contradictory(graph: Graph, group: RangeGroup) -> bool:
    """Returns whether some tensors of a group have prescribed parameters, and others do not.

    Args:
        graph: A graph of quantized layers.
        group: The group.
    """
    return len({fixed_parameters(node) for node in makers(graph, group)}) > 1
