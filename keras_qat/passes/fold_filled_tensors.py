"""Writes tensors that are filled with one number as constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, Parameter, operation_named
from keras_qat.graph.graph import Shape, flatten_edges, map_edges
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.rewriting import absorb_nodes, rewrite_nodes

_FILLED = operation_named("FullLike", "OnesLike", "ZerosLike")
# Operations that broadcast a constant over the batch.
_BROADCASTS = operation_named(
    *("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide", "Where"),
    *("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalXor"),
)


def fold_filled_tensors(graph: Graph) -> Graph:
    """Writes `x + ops.ones_like(x)` as `x + 1.0`.

    Matches: `ops.zeros_like`, `ops.ones_like`, and `ops.full_like` of a number.
    Builds: constants of the arithmetic, comparisons and selections that take them. Where a tensor
    is needed, such as in a concatenation, `0.0 * x + value`.
    Why: a constant needs no operator, and folds into other layers.

    Args:
        graph: The graph.

    Returns:
        A graph without these operations, except of tensors of plain numbers.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        value = _value(node)
        is_real = value is not None and graph.dtype(node.inputs[0]) == node.dtypes[0]
        if value is None or not is_real or graph.is_plain(node.inputs[0]):
            return None
        return lambda x, *_, **__: ops.multiply(x, 0.0) + float(value)

    return rewrite_nodes(_folded(graph), write)


def _value(node: Node) -> Any:
    """Returns the number that a tensor is filled with; None for other tensors."""
    if node.is_input or not _FILLED(node.head):
        return None
    kind = type(node.head).__name__
    if kind != "FullLike":
        return 0 if kind == "ZerosLike" else 1
    args, kwargs = node.arguments
    value = args[1] if len(args) > 1 else kwargs["fill_value"]
    is_constant = not isinstance(value, Edge) and not getattr(value, "trainable", False)
    return value_of(value).item() if is_constant and value_of(value).size == 1 else None


def _folded(graph: Graph) -> Graph:
    """Returns the graph with filled tensors as constants where a constant does."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    filled = {
        Edge(node.name): np.array(value, node.dtypes[0])
        for node in graph.nodes.values()
        if (value := _value(node)) is not None and _is_used_elsewhere(graph, node, consumers)
    }
    made: dict[str, Node] = {}
    for node in graph.nodes.values():
        if not node.is_input and _BROADCASTS(node.head):
            found = {edge: filled[edge] for edge in node.inputs if edge in filled}
            changed = _with_constants(graph, node, found)
            if found and changed is not None:
                made[node.name] = changed
    unused = {
        edge.node
        for edge in filled
        if edge not in outputs and all(taker.name in made for taker in consumers.get(edge, ()))
    }
    absorbed = {
        name: [edge.node for edge in graph.nodes[name].inputs if edge.node in unused]
        for name in made
    }
    return absorb_nodes(graph, made, absorbed, {})


def _is_used_elsewhere(graph: Graph, node: Node, consumers: Mapping[Edge, list[Node]]) -> bool:
    """Returns whether the tensor that gives a filled tensor its shape has another use."""
    (edge,) = node.inputs
    return len(consumers[edge]) > 1 or edge in graph.output_edges


def _with_constants(graph: Graph, node: Node, filled: Mapping[Edge, np.ndarray]) -> Node | None:
    """Returns a call with constants for filled tensors; None if no tensor would be left."""
    shapes = [graph.shape(edge) for edge in node.inputs if edge not in filled]
    if len({len(shape) for shape in shapes}) != 1:
        return None
    whole = broadcast_shape(*shapes) == node.shapes[0]
    if not whole and any(None in graph.shape(edge)[1:] for edge in filled):
        return None

    def constant(edge: Edge) -> Any:
        """Returns the constant of a filled tensor, else the edge."""
        value = filled.get(edge)
        if value is None:
            return edge
        return Parameter(value if whole else np.full(_sample(graph.shape(edge)), value))

    arguments = map_edges(constant, node.arguments)
    return dataclasses.replace(node, arguments=arguments, inputs=tuple(flatten_edges(arguments)))


def _sample(shape: Shape) -> tuple[int, ...]:
    """Returns the shape with a batch of one sample."""
    return (1, *(size or 0 for size in shape[1:]))
