"""The graph as the rules of the canonical form see it, and the edits that they make."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import Shape, map_edges
from keras_qat.layers.core.registry import find_rule


@dataclasses.dataclass(frozen=True)
class Edit:
    """Nodes that replace one node, and possibly the node before it.

    Attributes:
        nodes: The new nodes, in topological order; empty if the node does nothing.
        output: The tensor that stands for the output of the old node.
        moved: Name of the node before, if it is among the new nodes.
    """

    nodes: tuple[Node, ...]
    output: Edge
    moved: str | None = None


class View:
    """A graph with the consumers of each tensor and the calls of each operation.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph):
        self.graph, self.outputs = graph, set(graph.output_edges)
        self.consumers = graph.consumers()
        self.calls = collections.Counter(id(node.head) for node in graph.nodes.values())

    def follower(self, node: Node) -> Node | None:
        """Returns the only consumer of a node, or None if something else needs the output too.

        Args:
            node: A node. Nodes that a scheme separates from it do not count.
        """
        edge = Edge(node.name)
        takers = self.consumers.get(edge, [])
        if len(takers) != 1 or edge in self.outputs or not takers[0].is_like(node):
            return None
        return takers[0]

    def absorbs(self, node: Node, follower: Node) -> bool:
        """Returns whether a follower will be fused into a node. Calls of shared layers differ.

        Args:
            node: The node.
            follower: A node that would take the output of the node.
        """
        is_called_once = self.calls[id(node.head)] == self.calls[id(follower.head)] == 1
        chain = (*node.operations, *follower.operations)
        return not node.is_input and is_called_once and find_rule(chain) is not None

    def pairs(self) -> Iterator[Pair]:
        """Yields each node with a single input, with the node that makes the input."""
        for node in self.graph.nodes.values():
            if len(node.inputs) == 1:
                yield Pair(self, self.graph.nodes[node.inputs[0].node], node)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A node with a single input, and the node before it.

    Attributes:
        view: The graph.
        before: The node before.
        node: The node.
    """

    view: View
    before: Node
    node: Node

    @property
    def source(self) -> Edge:
        """The only tensor that the node before takes."""
        return self.before.inputs[0]

    @property
    def source_shape(self) -> Shape:
        """The shape of `source`."""
        return self.view.graph.shape(self.source)

    @property
    def can_join(self) -> bool:
        """Whether one node may compute both operations from `source`."""
        return len(self.before.inputs) == 1 and self.node.is_like(self.before)

    @property
    def can_swap(self) -> bool:
        """Whether only the node needs the tensor between both."""
        return self.can_join and self.view.follower(self.before) is self.node

    def removed(self, source: Edge) -> Edit | None:
        """Removes the node. An output of the model keeps a separate operator.

        Args:
            source: The tensor that equals the output of the node.
        """
        edge, view = Edge(self.node.name), self.view
        is_end = source in view.outputs or view.graph.nodes[source.node].is_input
        return None if edge in view.outputs and is_end else Edit((), source)

    def joined(self, operation: Any) -> Edit:
        """Lets one operation of `source` take the place of the node.

        Args:
            operation: A Keras layer without weights.
        """
        node = Node.call(
            operation, self.node.name, self.source, self.node.shapes[0], self.node.dtypes[0]
        )
        node = dataclasses.replace(node, scheme=self.node.scheme)
        return Edit((node.made_of(self.before, self.node),), Edge(node.name))

    def swapped(self, arguments: Any = None, operation: Any = None) -> Edit:
        """Applies the operation of the node first.

        Each operation keeps its name. If both belong to one operation of the user, the last one
        keeps the name of that operation.

        Args:
            arguments: Arguments of the node's call that replace its own.
            operation: The operation that replaces the node's own.
        """
        before, node = self.before, self.node
        if operation is not None:
            node = dataclasses.replace(node, operations=(operation,))
        first, last = node.name, before.name
        if before.origins == node.origins:
            first, last = last, first
        ahead = _call(node, first, arguments or node.arguments, self.source, self.source_shape)
        after = _call(before, last, before.arguments, Edge(first), node.shapes[0])
        made = (
            dataclasses.replace(new.made_of(before, node), origins=old.origins)
            for new, old in ((ahead, node), (after, before))
        )
        return Edit(tuple(made), Edge(last), moved=before.name)


Rule = Callable[[Pair], Edit | None]


def _call(node: Node, name: str, arguments: Any, edge: Edge, shape: Shape) -> Node:
    """Returns the node of a call with another input, shape and name."""
    return dataclasses.replace(
        node,
        name=name,
        inputs=(edge,),
        arguments=map_edges(lambda _: edge, arguments),
        shapes=(shape,),
    )


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Applies the first rule that matches to all pairs that have no node in common.

    Args:
        graph: The graph.
        rules: The rules.

    Returns:
        The graph without nodes that nothing needs any more, or the graph itself if no rule
        matches.
    """
    view = View(graph)
    edits: dict[str, Edit] = {}
    touched: set[str] = set()
    for pair in view.pairs():
        names = {pair.node.name, pair.before.name, *(edge.node for edge in pair.before.inputs)}
        if touched & names:
            continue
        found = (edit for rule in rules if (edit := rule(pair)) is not None)
        edit = next(found, None)
        if edit is not None:
            edits[pair.node.name] = edit
            touched |= names
    return without_unused(_edited(graph, edits)) if edits else graph


def _edited(graph: Graph, edits: Mapping[str, Edit]) -> Graph:
    """Returns the graph with all edits applied."""
    moved = {edit.moved for edit in edits.values()}
    mapping = {Edge(name): edit.output for name, edit in edits.items() if edit.output.node != name}
    nodes: list[Node] = []
    for name, node in graph.nodes.items():
        if name in edits:
            nodes += edits[name].nodes
        elif name not in moved:
            nodes.append(node)
    # A moved node takes the tensor that the mapping redirects to the node itself.
    return graph.replace(nodes, mapping, unchanged=moved)


def without_unused(graph: Graph) -> Graph:
    """Removes nodes that no output needs."""
    needed = {edge.node for edge in graph.output_edges}
    for node in reversed(tuple(graph.nodes.values())):
        if node.name in needed:
            needed.update(edge.node for edge in node.inputs)
    nodes = [node for node in graph.nodes.values() if node.is_input or node.name in needed]
    return graph.replace(nodes, {})
