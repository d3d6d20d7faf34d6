"""Writes arithmetic with constants as one factor and one offset for each channel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_qat.graph import Edge, Graph, Node, Parameter, operation_named
from keras_qat.layers.channel_affine import ChannelAffine

_ARITHMETIC = operation_named("Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Negative")


@dataclasses.dataclass(frozen=True)
class _Affine:
    """`x * gamma + beta`, each an array of one number for each channel, and what trains."""

    gamma: np.ndarray
    beta: np.ndarray
    trainable_scale: bool = False
    trainable_shift: bool = False


def write_affines(graph: Graph) -> Graph:
    """Writes `x * gamma`, `x + beta`, `x / 6`, `1 - x` and the like as a `ChannelAffine`.

    Matches: Add, Subtract, Multiply, TrueDivide or Negative of one tensor and a constant, or a
    variable of a custom layer, that has one number or one for each channel.
    Builds: a `ChannelAffine`, which `fold_batch_norms` folds into the layer before it, or which
    becomes a per-channel operator of its own. The variables still train.
    Why: an operator with an int8 constant would cost a requantization and have one scale for
    all channels.

    Args:
        graph: The graph.

    Returns:
        A graph without such arithmetic.
    """
    nodes = []
    for node in graph.nodes.values():
        affine = _affine_of(graph, node)
        nodes.append(node if affine is None else _written(node, affine))
    return graph.replace(nodes, {})


def _affine_of(graph: Graph, node: Node) -> _Affine | None:
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
    if kind == "Add":
        return _Affine(ones, value, trainable_shift=trainable)
    if kind == "Subtract":
        sign = 1.0 if place == 0 else -1.0
        return _Affine(-sign * ones, sign * value, trainable_shift=trainable)
    gamma = value if kind == "Multiply" else 1.0 / value
    return _Affine(gamma, zeros, trainable_scale=trainable)


def _per_channel(leaf: Any, shape: tuple) -> np.ndarray | None:
    """The constant as one number for each channel, or None if it differs along other axes."""
    array = np.asarray(leaf.value if isinstance(leaf, Parameter) else leaf, "float64")
    if array.ndim > len(shape) or any(size != 1 for size in array.shape[:-1]):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[-1],)).copy()


def _written(node: Node, affine: _Affine) -> Node:
    layer = ChannelAffine(
        trainable_scale=affine.trainable_scale,
        trainable_shift=affine.trainable_shift,
        name=node.name,
    )
    layer.build(node.shapes[0])
    layer.set_values(affine.gamma, affine.beta)
    arguments = ((node.inputs[0],), {})
    return dataclasses.replace(node, operations=(layer,), arguments=arguments)
