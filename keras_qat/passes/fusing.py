"""Absorbs followers into the nodes before them, for several passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.rewriting import absorb_nodes


def fuse_followers(graph: Graph, is_follower: Callable[[Any], bool]) -> Graph:
    """Lets each node absorb the node after it, if the pattern of its slice allows that.

    The node must be linear, because its own activation would come before the follower. A follower
    is absorbed if it is the only consumer of the node's output, the output is not an output of
    the model, and every other call of the same layers is followed by the same operation, so that
    shared layers stay shared.

    Args:
        graph: The graph.
        is_follower: Which operations may be absorbed.

    Returns:
        The graph with the followers absorbed; the graph itself if there were none.
    """
    pairs = _keep_shared(graph, _candidates(graph, is_follower))
    made = {
        name: dataclasses.replace(
            graph.nodes[name],
            operations=graph.nodes[name].operations + follower.operations,
            shapes=follower.shapes,
            dtypes=follower.dtypes,
        )
        for name, follower in pairs.items()
    }
    absorbed = {name: [follower.name] for name, follower in pairs.items()}
    mapping = {Edge(follower.name): Edge(name) for name, follower in pairs.items()}
    return absorb_nodes(graph, made, absorbed, mapping)


def _candidates(graph: Graph, is_follower: Callable[[Any], bool]) -> dict[str, Node]:
    """Returns the follower that each node can fuse, by the name of the node."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    pairs = {}
    for node in graph.nodes.values():
        edge = Edge(node.name)
        behind = consumers.get(edge, [])
        if len(behind) != 1 or edge in outputs or node.is_input:
            continue
        follower = behind[0]
        if not len(follower.operations) == len(follower.inputs) == 1 or not follower.is_like(node):
            continue
        chain = node.operations + follower.operations
        is_taken = is_follower(follower.head) and find_rule(chain) is not None
        if is_taken and all(map(_is_open, node.operations)):
            pairs[node.name] = follower
    return pairs


def _is_open(operation: Any) -> bool:
    """Returns whether an operation has no activation and no penalty, as these precede a follower.

    The rewrites `split_activations` and `split_regularizers` may be left out.
    """
    is_linear = function_name(getattr(operation, "activation", None)) == "linear"
    return is_linear and getattr(operation, "activity_regularizer", None) is None


def _keep_shared(graph: Graph, pairs: dict[str, Node]) -> dict[str, Node]:
    """Drops the pairs of shared layers that are followed by different operations."""

    def key(operations):
        """Identifies operations by object: calls of a shared layer have the same key."""
        return tuple(id(operation) for operation in operations)

    calls: dict[Any, int] = {}
    for node in graph.nodes.values():
        for operation in node.operations:
            calls[id(operation)] = calls.get(id(operation), 0) + 1
    together: dict[Any, int] = {}
    for name, follower in pairs.items():
        pair = key(graph.nodes[name].operations + follower.operations)
        together[pair] = together.get(pair, 0) + 1
    kept = {}
    for name, follower in pairs.items():
        operations = graph.nodes[name].operations + follower.operations
        if all(calls[id(op)] == together[key(operations)] for op in operations):
            kept[name] = follower
    return kept
