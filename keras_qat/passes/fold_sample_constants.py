"""Adds constants that are made for each sample as plain constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, Parameter, layer_of, operation_named
from keras_qat.graph.graph import flatten_edges, map_edges
from keras_qat.graph.keras_internals import producer_of
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.canonical.edits import without_unused
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

_SUM = operation_named("Add")
_PRODUCT = operation_named("Multiply")
# Operations that broadcast a constant over the batch.
_BROADCASTS = operation_named(
    "Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Maximum", "Minimum"
)
_LAYER = layer_of(keras.layers.Add)


def fold_sample_constants(graph: Graph) -> Graph:
    """Writes `x + (0.0 * x[:, :1] + table)` as `x + table`.

    Matches: arithmetic of tensors one of which is a constant for all samples: zero times a tensor,
    plus a weight or an array. `open_layers` makes it where a layer returns a weight for each
    sample, such as a position embedding.
    Builds: the arithmetic with the constant. Zero times the tensor is removed if nothing else
    takes it.
    Why: LiteRT broadcasts constants. A tensor of zeros would be an operator, and its scale does not
    fit the scale of the constant.

    Args:
        graph: The graph.

    Returns:
        A graph in which a constant is a tensor only where an operator needs one.
    """
    constant = {edge: made for edge in graph.consumers() if (made := _constant(graph, edge))}
    # One weight in two places, as a constant and in a tensor, would train as two weights.
    kept = {
        edge
        for edge, takers in graph.consumers().items()
        if edge in graph.output_edges or not all(_takes(graph, node, constant) for node in takers)
    }

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        found = {edge: constant[edge] for edge in node.inputs if edge in constant.keys() - kept}
        if not found or not _takes(graph, graph.nodes[node.name], constant):
            return None
        rest = [edge for edge in node.inputs if edge not in found]
        is_sum = _LAYER(node.head)
        constants = {edge: value for edge, (value, _) in found.items()}
        beside = [each for _, nodes in found.values() for each in nodes]
        nodes = _sum(node, rest, constants, rewriting) if is_sum else [_with(node, constants)]
        return Replacement(nodes, beside=beside)

    made = replace_nodes(graph, write)
    return graph if made is graph else without_unused(made)


def _takes(graph: Graph, node: Node, constant: Container[Edge]) -> bool:
    """Returns whether a node can take constants in place of tensors."""
    if len(node.operations) != 1 or not (_LAYER(node.head) or _BROADCASTS(node.head)):
        return False
    rest = [edge for edge in node.inputs if edge not in constant]
    return bool(rest) and _keeps_shape(graph, node, rest)


def _constant(graph: Graph, edge: Edge) -> tuple[Parameter, list[Node]] | None:
    """Returns the constant that a tensor is for all samples, and the nodes that compute it."""
    node = graph.nodes[edge.node]
    if node.is_input or not _SUM(node.head) or len(node.inputs) != 1:
        return None
    values = [leaf for leaf in node.arguments[0] if isinstance(leaf, Parameter)]
    zeros = _zeros(graph, graph.nodes[node.inputs[0].node])
    fits = len(values) == 1 and values[0].value.shape[1:] == node.shapes[0][1:]
    is_single = fits and values[0].value.shape[:1] == (1,)
    return (values[0], [*zeros, node]) if zeros and is_single else None


def _zeros(graph: Graph, node: Node) -> list[Node]:
    """Returns the nodes that make a tensor of zeros; none if it has other values."""
    if node.is_input or len(node.inputs) != 1:
        return []
    if operation_named("Reshape")(node.head):
        made = _zeros(graph, graph.nodes[node.inputs[0].node])
        return [*made, node] if made else []
    factors = [leaf for leaf in node.arguments[0] if not isinstance(leaf, Edge)]
    is_zero = _PRODUCT(node.head) and len(factors) == 1 and not np.any(value_of(factors[0]))
    return [node] if is_zero else []


def _keeps_shape(graph: Graph, node: Node, rest: list[Edge]) -> bool:
    """Returns whether the tensors that are left have the shape of the result."""
    shapes = [graph.shape(edge) for edge in rest]
    return len({len(shape) for shape in shapes}) == 1 and broadcast_shape(*shapes) == node.shapes[0]


def _with(node: Node, constants: dict[Edge, Parameter]) -> Node:
    arguments = map_edges(lambda edge: constants.get(edge, edge), node.arguments)
    return dataclasses.replace(node, arguments=arguments, inputs=tuple(flatten_edges(arguments)))


def _sum(
    node: Node, rest: list[Edge], constants: dict[Edge, Parameter], rewriting: Rewriting
) -> list[Node]:
    """Returns the calls of a sum of several tensors, and the constants added to it."""
    nodes: list[Node] = []
    edge = rest[0]
    if len(rest) > 1:
        name = rewriting.free_name(f"{node.name}_tensors")
        nodes.append(
            dataclasses.replace(node, name=name, inputs=tuple(rest), arguments=((rest,), {}))
        )
        edge = Edge(name)
    for i, value in enumerate(constants.values(), start=1):
        name = node.name if i == len(constants) else rewriting.free_name(f"{node.name}_constant")
        arguments = ((edge, value), {})
        nodes.append(
            dataclasses.replace(
                node, name=name, operations=(_addition(),), inputs=(edge,), arguments=arguments
            )
        )
        edge = Edge(name)
    return nodes


def _addition() -> Any:
    x = keras.KerasTensor((None, 1))
    made = producer_of(ops.add(x, x))
    assert made is not None, "an operation on a symbolic tensor has a producer"
    return made[0]
