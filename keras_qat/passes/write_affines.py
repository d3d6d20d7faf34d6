"""Writes arithmetic with constants as one factor and one offset for each channel."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_qat.graph import Edge, Graph, Node, Parameter, operation_named
from keras_qat.graph.penalties import regularizer_of
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.passes.rewriting import absorb_nodes

_ARITHMETIC = operation_named("Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Negative")


@dataclasses.dataclass(frozen=True)
class _Affine:
    """The function `x * gamma + beta`, with arrays of one number for each channel."""

    gamma: np.ndarray
    beta: np.ndarray
    trainable_scale: bool = False
    trainable_shift: bool = False
    scale_regularizer: Any = None
    shift_regularizer: Any = None

    @property
    def trains(self) -> bool:
        """Whether training changes the function."""
        return self.trainable_scale or self.trainable_shift

    @property
    def is_identity(self) -> bool:
        """Whether the function returns its input, and always will."""
        return not self.trains and bool(np.all(self.gamma == 1) and np.all(self.beta == 0))

    def then(self, other: _Affine) -> _Affine | None:
        """Composes two affines. Returns None if their variables would train differently."""
        scales = bool(np.any(other.gamma != 1)) or other.trainable_scale
        trains = self.trains or other.trainable_scale
        if (scales and trains) or (self.trainable_shift and other.trainable_shift):
            return None
        if other.shift_regularizer is not None and np.any(self.beta):
            return None  # the sum of both would be penalized
        return _Affine(
            self.gamma * other.gamma,
            self.beta * other.gamma + other.beta,
            self.trainable_scale,
            self.trainable_shift or other.trainable_shift,
            self.scale_regularizer,
            self.shift_regularizer or other.shift_regularizer,
        )


def write_affines(graph: Graph) -> Graph:
    """Writes `x * gamma`, `x + beta`, `x / 6`, `1 - x` and similar arithmetic as `ChannelAffine`.

    Matches: Add, Subtract, Multiply, TrueDivide or Negative of one tensor and a constant, or a
    variable of a custom layer, that has one number or one for each channel; `Rescaling` and
    `Normalization` consist of these.
    Builds: one `ChannelAffine` for several operations in a row, or none if they return their input.
    The passes for batch normalizations fold it into the layer before or after it. Otherwise it
    becomes a per-channel operator of its own. The variables still train.
    Why: an operator with an int8 constant would cost a requantization and have one scale for
    all channels.

    Args:
        graph: The graph.

    Returns:
        A graph without such arithmetic.
    """
    affines = {node.name: _affine_of(graph, node) for node in graph.nodes.values()}
    found = {name: affine for name, affine in affines.items() if affine is not None}
    chains, mapping = _merge(graph, found)
    # Calls of the same operations have the same variables, and become calls of one layer.
    layers: dict[tuple[int, ...], ChannelAffine] = {}
    made: dict[str, Node] = {}
    for name, (affine, names) in chains.items():
        node = graph.nodes[name]
        if Edge(name) not in mapping:
            key = _operations(graph, names)
            layers[key] = layers.get(key) or _layer_of(node, affine)
            arguments = ((node.inputs[0],), {})
            made[name] = dataclasses.replace(node, operations=(layers[key],), arguments=arguments)
    absorbed = {name: chains[name].names[:-1] for name in made}
    return absorb_nodes(graph, made, absorbed, mapping)


class _Chain(NamedTuple):
    """Affines in a row as one affine, and the names of their nodes."""

    affine: _Affine
    names: tuple[str, ...]


def _merge(
    graph: Graph, found: Mapping[str, _Affine]
) -> tuple[dict[str, _Chain], dict[Edge, Edge]]:
    """Merges affines in a row into the last one. Returns the chains, and the replacements.

    Calls of one operation with a variable stay calls of one layer: where they are in different
    rows, they are not merged.
    """
    apart: set[int] = set()
    while True:
        chains, mapping = _merged(graph, found, apart)
        rows: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        for name, chain in chains.items():
            if Edge(name) not in mapping:
                for each in chain.names:
                    if found[each].trains:
                        rows[id(graph.nodes[each].head)].add(_operations(graph, chain.names))
        torn = {head for head, places in rows.items() if len(places) > 1}
        if torn <= apart:
            return chains, mapping
        apart |= torn


def _operations(graph: Graph, names: Iterable[str]) -> tuple[int, ...]:
    return tuple(id(graph.nodes[name].head) for name in names)


def _merged(
    graph: Graph, found: Mapping[str, _Affine], apart: Container[int]
) -> tuple[dict[str, _Chain], dict[Edge, Edge]]:
    """Joins affines that follow each other into chains."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    chains = {name: _Chain(affine, (name,)) for name, affine in found.items()}
    mapping: dict[Edge, Edge] = {}
    for name in found:
        edge = graph.nodes[name].inputs[0]
        before = chains.get(edge.node)
        is_like = graph.nodes[name].is_like(graph.nodes[edge.node])
        if before is not None and is_like and edge not in outputs and len(consumers[edge]) == 1:
            both = before.affine.then(found[name])
            heads = _operations(graph, (edge.node, name))
            if both is not None and not any(head in apart for head in heads):
                chains[name] = _Chain(both, (*before.names, name))
                mapping[edge] = _source(graph, edge, mapping)
        if chains[name].affine.is_identity:
            mapping[Edge(name)] = _source(graph, Edge(name), mapping)
    return chains, mapping


def _source(graph: Graph, edge: Edge, mapping: dict[Edge, Edge]) -> Edge:
    source = graph.nodes[edge.node].inputs[0]
    return mapping.get(source, source)


def _affine_of(graph: Graph, node: Node) -> _Affine | None:
    """Returns the affine that an arithmetic operation computes, or None."""
    if len(node.operations) != 1 or len(node.inputs) != 1 or not _ARITHMETIC(node.head):
        return None
    shape = graph.shape(node.inputs[0])
    if node.shapes[0] != shape or len(shape) < 2 or shape[-1] is None:
        return None
    args = [*node.arguments[0], *node.arguments[1].values()]
    kind, ones, zeros = type(node.head).__name__, np.ones(shape[-1]), np.zeros(shape[-1])
    if kind == "Negative":
        return _Affine(-ones, zeros)
    place = next(i for i, leaf in enumerate(args) if not isinstance(leaf, Edge))
    value, trainable = _per_channel(args[place], shape), getattr(args[place], "trainable", False)
    if value is None or len(args) != 2 or (place == 0 and kind in ("TrueDivide", "Divide")):
        return None
    penalty = regularizer_of(args[place], value.size)
    if kind in ("Add", "Subtract"):
        sign = -1.0 if kind == "Subtract" and place == 1 else 1.0
        gamma = -ones if kind == "Subtract" and place == 0 else ones
        return _Affine(gamma, sign * value, trainable_shift=trainable, shift_regularizer=penalty)
    if kind == "Multiply":
        return _Affine(value, zeros, trainable_scale=trainable, scale_regularizer=penalty)
    return _Affine(1.0 / value, zeros, trainable_scale=trainable)


def _per_channel(leaf: Any, shape: tuple) -> np.ndarray | None:
    """Returns the constant as one value for each channel, or None if other axes matter too."""
    array = np.asarray(leaf.value if isinstance(leaf, Parameter) else leaf, "float64")
    if array.ndim > len(shape) or any(size != 1 for size in array.shape[:-1]):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[-1],)).copy()


def _layer_of(node: Node, affine: _Affine) -> ChannelAffine:
    layer = ChannelAffine(
        trainable_scale=affine.trainable_scale,
        trainable_shift=affine.trainable_shift,
        gamma_regularizer=affine.scale_regularizer,
        beta_regularizer=affine.shift_regularizer,
        name=node.name,
        dtype="float32",
    )
    layer.build(node.shapes[0])
    layer.set_values(affine.gamma, affine.beta)
    return layer
