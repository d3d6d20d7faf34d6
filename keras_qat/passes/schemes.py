"""Gives each node its scheme before the rewrites, and adjusts schemes after them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from keras_qat.errors import InvalidOverrideError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import find_rule
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.passes.inline_models import inline_models
from keras_qat.scheme import Scheme


def check_one_type(schemes: Mapping[int, Scheme | None], default: Scheme) -> None:
    """Raises if an override has another integer type than the rest of the model.

    Args:
        schemes: The schemes of the operations with an override, None for float.
        default: Scheme of all other operations.

    Raises:
        InvalidOverrideError: If a scheme's activations have another sign than the default's.
    """
    for scheme in schemes.values():
        if scheme is not None and scheme.is_signed != default.is_signed:
            raise InvalidOverrideError(
                "A model has signed or unsigned integers, not both.",
                received=f"overrides with '{scheme.name}' for a model in '{default.name}'",
                expected=f"None, or a scheme of {_sign(default)} activations",
                fix="Quantize the whole model with one scheme.",
            )


def _sign(scheme: Scheme) -> str:
    return "signed" if scheme.is_signed else "unsigned"


def origins_of(source: Graph, schemes: Mapping[int, Scheme | None]) -> frozenset[str]:
    """Returns the origins that overrides apply to.

    Args:
        source: The user's model, as it was read.
        schemes: Scheme by the `id` of the operation, for those with an override.
    """
    opened = inline_models(source).nodes.values()
    return frozenset(node.name for node in opened if id(node.head) in schemes)


def annotate_schemes(
    graph: Graph, schemes: Mapping[int, Scheme | None], default: Scheme | None
) -> Graph:
    """Gives each node the scheme that the user wants for its operation.

    Args:
        graph: The graph.
        schemes: Scheme by the `id` of the operation, None for float.
        default: Scheme of all other operations, and of the inputs of the model.

    Returns:
        The graph with schemes. Rewrites join only nodes that are all in float, or all in integers.
    """
    nodes = {
        name: dataclasses.replace(node, scheme=schemes.get(id(node.head), default))
        for name, node in graph.nodes.items()
    }
    return dataclasses.replace(graph, nodes=nodes)


def settle_followers(graph: Graph, named: Collection[str]) -> Graph:
    """Moves nodes to float that can be fused into a float layer.

    Matches: a batch normalization or an activation after a float layer (or after another node that
    is fused into that layer), unless a key of `overrides` matches it.
    Builds: the same nodes, in float.
    Why: a convolution and the nodes that are fused into it have one scheme.

    Args:
        graph: A graph with schemes, just before anything is fused.
        named: The origins that a key of `overrides` matches.

    Returns:
        The graph; the same object if all nodes keep their schemes.
    """
    chains: dict[str, tuple[Any, ...]] = {}
    while found := _taken_up(graph, chains, named):
        nodes = dict(graph.nodes)
        for name, chain in found.items():
            source = nodes[nodes[name].inputs[0].node]
            chains[name] = chain
            nodes[name] = dataclasses.replace(nodes[name], scheme=source.scheme)
        graph = dataclasses.replace(graph, nodes=nodes)
    return graph


def _taken_up(
    graph: Graph, chains: Mapping[str, tuple[Any, ...]], named: Collection[str]
) -> dict[str, tuple[Any, ...]]:
    """Returns the names of the followers of layers of another scheme, each with its chain."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    found = {}
    for node in graph.nodes.values():
        edge, takers = Edge(node.name), consumers.get(Edge(node.name), [])
        if len(takers) != 1 or edge in outputs or node.is_like(takers[0]):
            continue
        follower = takers[0]
        chain = chains.get(node.name, node.operations) + follower.operations
        is_named = not set(named).isdisjoint(follower.origins)
        can_follow = len(follower.inputs) == 1 and (
            BATCH_NORM(follower.head) or FUSED(follower.head)
        )
        if can_follow and not is_named and find_rule(chain) is not None:
            found[follower.name] = chain
    calls = collections.Counter(id(node.head) for node in graph.nodes.values())
    moves = collections.Counter(id(graph.nodes[name].head) for name in found)
    # A layer that is called elsewhere too has one scheme for all calls.
    heads = {name: id(graph.nodes[name].head) for name in found}
    return {
        name: chain for name, chain in found.items() if calls[heads[name]] == moves[heads[name]]
    }


def settle_without_operator(graph: Graph, default: Scheme) -> Graph:
    """Gives layers without an operator the scheme of their consumers, or of their input.

    Matches: a dropout, an augmentation and others that compute something at training only.
    Builds: the same nodes, in float if all their consumers are. If their output is an output of
    the model, the scheme of their input.
    Why: a dropout between two integer layers must not add a conversion to float. An augmentation
    between a float32 input and a float layer must not add a conversion to integers.

    Args:
        graph: A graph with schemes after all other rewrites.
        default: Scheme of the nodes that leave float.

    Returns:
        The graph with schemes.
    """
    nodes = dict(graph.nodes)
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    calls = collections.Counter(id(node.head) for node in graph.nodes.values())
    for node in reversed(tuple(graph.nodes.values())):
        edge = Edge(node.name)
        if node.is_input or calls[id(node.head)] > 1 or _makes_operator(node):
            continue
        takers = {nodes[taker.name].scheme is None for taker in consumers.get(edge, ())}
        is_between = len(takers) == 1 and edge not in outputs
        is_float = takers.pop() if is_between else graph.nodes[node.inputs[0].node].scheme is None
        scheme = None if is_float else node.scheme or default
        nodes[node.name] = dataclasses.replace(node, scheme=scheme)
    return dataclasses.replace(graph, nodes=nodes)


def _makes_operator(node: Node) -> bool:
    entry = find_rule(node.operations)
    layer = node.head if entry is None else entry.layer
    return getattr(layer, "makes_operator", True)
