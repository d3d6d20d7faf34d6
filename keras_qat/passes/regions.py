"""Keeps layers of different schemes apart while the graph is rewritten."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from keras_qat.errors import InvalidOverrideError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import map_edges, unique_name
from keras_qat.layers import QuantizedLayer, find_slice
from keras_qat.layers.activation_names import FUSED
from keras_qat.layers.batch_normalization import BATCH_NORM
from keras_qat.passes.fold_batch_norms import fold_batch_norms
from keras_qat.passes.fuse_activations import fuse_activations
from keras_qat.passes.inline_models import inline_models
from keras_qat.scheme import Scheme

Pass = Callable[[Graph], Graph]


class Border(QuantizedLayer):
    """Stands between layers of different schemes, so that no rewrite makes one of both.

    No pattern knows it. It exists between `draw_borders` and `remove_borders` only.

    Args:
        behind: Scheme of the layers behind it, None for float.
        is_asked_for: Whether the user said so of a layer behind it, and not only of the one before.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    operators = ()

    def __init__(self, behind: Scheme | None, is_asked_for: bool, **kwargs):
        super().__init__(**kwargs)
        self.behind, self.is_asked_for = behind, is_asked_for

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape


def with_borders(
    passes: Sequence[Pass], schemes: Mapping[int, Scheme | None], default: Scheme
) -> tuple[Pass, ...]:
    """Returns passes that keep layers of different schemes apart.

    Args:
        passes: The passes.
        schemes: Scheme by the `id` of the operation, None for float; empty if all have the default.
        default: Scheme of all other operations.

    Raises:
        InvalidOverrideError: If activations of a scheme have another type than the default's.
    """
    for scheme in schemes.values():
        if scheme is not None and scheme.dtype != default.dtype:
            raise InvalidOverrideError(
                "A model has one integer type; only float layers can be among its others.",
                received=f"overrides with '{scheme.name}' for a model in '{default.name}'",
                expected=f"None, or a scheme of {default.dtype} activations",
                fix="Quantize the whole model with one scheme.",
            )
    if not schemes:
        return tuple(passes)
    # Layers that differ in their weights only pass on the same integers: no border.
    schemes = {key: None if scheme is None else default for key, scheme in schemes.items()}
    fusing = [i for i, each in enumerate(passes) if each in (fold_batch_norms, fuse_activations)]
    first = fusing[0] if fusing else len(passes)
    draw = functools.partial(draw_borders, schemes=schemes, default=default)
    settle = functools.partial(settle_borders, asked_for=schemes.keys())
    return (inline_models, draw, *passes[:first], settle, *passes[first:])


def draw_borders(graph: Graph, schemes: Mapping[int, Scheme | None], default: Scheme) -> Graph:
    """Puts a `Border` wherever the scheme changes.

    Matches: a tensor that is taken by layers of another scheme than that of the layer that makes
    it; an input of the model counts as made in the default scheme.
    Builds: one `Border` for each tensor and each scheme behind it.
    Why: between two borders all layers have one scheme, whatever they are rewritten into, and a
    layer that is to stay in float is never fused into one that is not.

    Args:
        graph: A graph without nested models.
        schemes: Scheme by the `id` of the operation, None for float.
        default: Scheme of all other operations.

    Returns:
        A graph with borders; the graph itself if all schemes are the same.
    """

    def scheme_of(name: str) -> Scheme | None:
        node = graph.nodes[name]
        return default if node.is_input else schemes.get(id(node.head), default)

    nodes: dict[str, Node] = {}
    borders: dict[tuple[Edge, Scheme | None], Edge] = {}
    consumers = graph.consumers()
    for node in graph.nodes.values():
        mine = scheme_of(node.name)
        mapping = {}
        for edge in node.inputs:
            if scheme_of(edge.node) == mine:
                continue
            if (edge, mine) not in borders:
                asked = any(id(taker.head) in schemes for taker in consumers[edge])
                name = unique_name("border", {*graph.nodes, *nodes})
                border = _border(graph, edge, Border(mine, asked, name=name))
                nodes[border.name] = border
                borders[edge, mine] = Edge(border.name)
            mapping[edge] = borders[edge, mine]
        nodes[node.name] = node.rewired(mapping)
    return dataclasses.replace(graph, nodes=nodes) if borders else graph


def _border(graph: Graph, edge: Edge, border: Border) -> Node:
    return Node(
        name=border.name,
        operations=(border,),
        inputs=(edge,),
        arguments=((edge,), {}),
        shapes=(graph.shape(edge),),
        # Integers of an input become real values, unless they are ids, which nothing casts.
        dtypes=("float32" if graph.nodes[edge.node].is_input else graph.dtype(edge),),
    )


def settle_borders(graph: Graph, asked_for: Container[int]) -> Graph:
    """Moves borders behind what a layer before them takes up.

    Matches: a border behind a layer with another scheme, and behind the border a batch
    normalization or an activation that the layer's slice can take up, and that the user did not
    speak of.
    Builds: the border behind that one.
    Why: what a convolution is fused with becomes what the convolution becomes.

    Args:
        graph: A graph with borders, just before anything is fused.
        asked_for: The `id` of each operation that the user spoke of.

    Returns:
        A graph with as many borders; the graph itself if all stay where they are.
    """
    chains: dict[str, tuple[Any, ...]] = {}
    while moved := _movable(graph, chains, asked_for):
        swaps: dict[Edge, Edge] = {}
        nodes = {}
        for node in graph.nodes.values():
            if node.name in moved:
                border, source = node, node.inputs[0]
                follower = moved[node.name].rewired({Edge(border.name): source})
                border = border.rewired({source: Edge(follower.name)})
                chains[follower.name] = _chain(graph, chains, source) + follower.operations
                swaps[Edge(follower.name)] = Edge(border.name)
                nodes |= {follower.name: follower, border.name: border}
            elif node.name not in nodes:
                nodes[node.name] = node.rewired(swaps)
        outputs = map_edges(lambda edge, swaps=swaps: swaps.get(edge, edge), graph.outputs)
        graph = dataclasses.replace(graph, nodes=nodes, outputs=outputs)
    return graph


def _movable(
    graph: Graph, chains: Mapping[str, tuple[Any, ...]], asked_for: Container[int]
) -> dict[str, Node]:
    """Names of the borders to be moved, and what each is moved behind."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    found = {}
    for border in graph.nodes.values():
        if not isinstance(border.head, Border) or border.head.is_asked_for:
            continue
        source, behind = border.inputs[0], consumers.get(Edge(border.name), [])
        if len(consumers[source]) != 1 or len(behind) != 1 or source in outputs:
            continue
        follower = behind[0]
        if id(follower.head) in asked_for:
            continue
        chain = _chain(graph, chains, source) + follower.operations
        is_fused = BATCH_NORM(follower.head) or FUSED(follower.head)
        if len(follower.inputs) == 1 and is_fused and find_slice(chain) is not None:
            found[border.name] = follower
    calls = collections.Counter(id(node.head) for node in graph.nodes.values())
    moves = collections.Counter(id(follower.head) for follower in found.values())
    # A layer that is called elsewhere too has one scheme for all calls.
    return {name: f for name, f in found.items() if calls[id(f.head)] == moves[id(f.head)]}


def _chain(graph: Graph, chains: Mapping[str, tuple[Any, ...]], edge: Edge) -> tuple[Any, ...]:
    return chains.get(edge.node, graph.nodes[edge.node].operations)


def remove_borders(graph: Graph, default: Scheme | None) -> tuple[Graph, dict[str, Scheme | None]]:
    """Takes the borders away, and says on which side of them each node is.

    Args:
        graph: A graph of which each node has an input; borders are where schemes change.
        default: Scheme of what is behind the model's inputs.

    Returns:
        The graph without borders, and the scheme of each node by name, None for float.
    """
    schemes: dict[str, Scheme | None] = {}
    mapping: dict[Edge, Edge] = {}
    kept = []
    for node in graph.nodes.values():
        if node.is_input:
            schemes[node.name] = default
        elif isinstance(node.head, Border):
            schemes[node.name] = node.head.behind
            mapping[Edge(node.name)] = mapping.get(node.inputs[0], node.inputs[0])
            continue
        else:
            schemes[node.name] = schemes[node.inputs[0].node]
        kept.append(node)
    if not mapping:
        return graph, schemes
    graph = graph.replace(kept, mapping)
    schemes = {node.name: schemes[node.name] for node in kept}
    return graph, schemes | _without_operator(graph, schemes)


def _without_operator(
    graph: Graph, schemes: Mapping[str, Scheme | None]
) -> dict[str, Scheme | None]:
    """The schemes of layers that add no operator: those of what takes them, or what they take.

    A dropout between two integer layers is no reason to leave the integers, nor is an augmentation
    between a float32 input and a float layer a reason to enter them.
    """
    found: dict[str, Scheme | None] = {}
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    calls = collections.Counter(id(node.head) for node in graph.nodes.values())
    for node in reversed(tuple(graph.nodes.values())):
        edge = Edge(node.name)
        if node.is_input or calls[id(node.head)] > 1 or _makes_operator(node):
            continue
        takers = {found.get(t.name, schemes[t.name]) for t in consumers.get(edge, ())}
        is_between = len(takers) == 1 and edge not in outputs
        found[node.name] = takers.pop() if is_between else schemes[node.inputs[0].node]
    return found


def _makes_operator(node: Node) -> bool:
    entry = find_slice(node.operations)
    layer = node.head if entry is None else entry.layer
    return getattr(layer, "makes_operator", True)
