"""Writes masks that are added to scores as selections of a value far below the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_qat.graph import Edge, Graph, Node, Parameter, any_of, layer_of, operation_named
from keras_qat.graph.graph import map_edges
from keras_qat.layers.core.activation_names import activation_name
from keras_qat.layers.decompositions.composed import FAR, mask_scores
from keras_qat.layers.elementwise.binary import operands_of, value_of
from keras_qat.layers.elementwise.maximum import MASKED, SELECTION
from keras_qat.passes.rewriting import absorb_nodes, rewrite_nodes

_SUM = any_of(layer_of(keras.layers.Add), operation_named("Add"))
_DIFFERENCE = any_of(layer_of(keras.layers.Subtract), operation_named("Subtract"))
_SOFTMAX = any_of(layer_of(keras.layers.Softmax), operation_named("Softmax"))


def write_masks(graph: Graph) -> Graph:
    """Writes `softmax(x + mask)` with a mask of 0 and -1e9 as a softmax of a minimum.

    Matches: `x + mask` or `x - mask` before a softmax, with a constant mask of zeros and values of
    -10,000 or less; `ops.where(condition, x - 1e9, x)`, as in `keras.layers.Attention`.
    Builds: `ops.minimum(x, constant)`; `ops.where(condition, -1e9, x)`.
    Why: an 8-bit sum with a range of 1e9 would round all scores to one integer. A minimum and a
    selection only move values, so the range need not reach the masked scores.

    Args:
        graph: The graph.

    Returns:
        A graph in which no such value is added to scores.
    """
    consumers = graph.consumers()

    def write(node: Node) -> Callable[..., Any] | None:
        sign = _sign(node)
        takers = consumers.get(Edge(node.name), ())
        if not sign or len(node.inputs) != 1 or not takers or not all(map(_is_softmax, takers)):
            return None
        added = [sign * value_of(x) for x in operands_of(node) if not isinstance(x, Edge)]
        if len(added) != 1 or not _is_mask(node, added[0]):
            return None
        return lambda *args, **kwargs: mask_scores(_tensor(args, kwargs), added[0] == 0)

    return rewrite_nodes(_without_far_sums(graph), write)


def _sign(node: Node) -> int:
    """Returns the sign of the constant of a sum or difference; 0 for other operations."""
    if _DIFFERENCE(node.head):
        return 0 if not isinstance(operands_of(node)[0], Edge) else -1
    return 1 if _SUM(node.head) else 0


def _is_mask(node: Node, values: np.ndarray) -> bool:
    """Returns whether a constant that does not train is 0 or far below 0 everywhere."""
    leaves = tree.flatten(node.arguments)
    trains = any(isinstance(leaf, Parameter) and leaf.trainable for leaf in leaves)
    return not trains and bool(np.all((values == 0) | (values <= MASKED)) and np.any(values))


def _is_softmax(node: Node) -> bool:
    return _SOFTMAX(node.head) or activation_name(node.head) == "softmax"


def _tensor(args: Any, kwargs: Any) -> Any:
    """Returns the only symbolic tensor among arguments."""
    leaves = tree.flatten((args, kwargs))
    return next(leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor))


def _without_far_sums(graph: Graph) -> Graph:
    """Replaces `x - 1e9` by -1e9 in `ops.where(condition, x - 1e9, x)`."""
    made: dict[str, Node] = {}
    absorbed: dict[str, list[str]] = {}
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    for node in graph.nodes.values():
        if node.is_input or not SELECTION(node.head):
            continue
        far = next(filter(None, (_far_sum(graph, x, node) for x in operands_of(node)[1:])), None)
        if far is not None:
            edge = Edge(far.name)
            made[node.name] = _with_constant(node, edge)
            is_unused = len(consumers[edge]) == 1 and edge not in outputs
            absorbed[node.name] = [far.name] if is_unused else []
    return absorb_nodes(graph, made, absorbed, {})


def _far_sum(graph: Graph, operand: Any, where: Node) -> Node | None:
    """Returns the sum of another operand of a selection and a number far below 0, or None."""
    if not isinstance(operand, Edge):
        return None
    node = graph.nodes[operand.node]
    if node.is_input or not _sign(node) or len(node.inputs) != 1:
        return None
    added = [_sign(node) * value_of(x) for x in operands_of(node) if not isinstance(x, Edge)]
    is_far = len(added) == 1 and added[0].size == 1 and _is_mask(node, added[0])
    return node if is_far and node.inputs[0] in where.inputs else None


def _with_constant(node: Node, edge: Edge) -> Node:
    """Returns a selection with a number far below 0 in the place of a tensor."""
    arguments = map_edges(lambda each: -FAR if each == edge else each, node.arguments)
    inputs = tuple(each for each in node.inputs if each != edge)
    return dataclasses.replace(node, arguments=arguments, inputs=inputs)
