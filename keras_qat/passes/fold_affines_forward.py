"""Folds a constant factor and offset for each channel into the layers after it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, any_of, layer_of, operation_named
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.input_affine import InputAffine
from keras_qat.passes.rewriting import absorb_nodes

_KERNEL = layer_of(
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_PRODUCT = any_of(layer_of(keras.layers.Multiply), operation_named("Multiply"))


class Affine(NamedTuple):
    """The function `x * gamma + beta` of each channel that a node computes."""

    gamma: np.ndarray
    beta: np.ndarray


def fold_affines_forward(graph: Graph) -> Graph:
    """Folds constant arithmetic into the convolutions or dense layers after it.

    Matches: a `ChannelAffine` whose variables do not train, or a frozen `BatchNormalization`. No
    layer before it absorbed it, and only convolutions and dense layers take its output. A layer
    that pads absorbs factors only, since its zeros would not be zeros before an offset. One factor
    for all channels is absorbed past a product of two tensors too.
    Builds: these layers with the factor and the offset before them. The file has `kernel * factor`
    and a bias. The kernel itself trains, as before.
    Why: the `Rescaling` or `Normalization` at the start of a model then costs nothing, and the
    input of the model is the pixels themselves.

    Args:
        graph: The graph.

    Returns:
        A graph with less arithmetic.
    """
    mapping: dict[Edge, Edge] = {}
    folded: dict[str, Node] = {}
    absorbed: dict[str, list[str]] = {}
    calls = Counter(id(node.head) for node in graph.nodes.values())
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    for node in graph.nodes.values():
        edge, affine = Edge(node.name), constant_affine(node)
        behind = [] if affine is None else _takers(consumers, outputs, node, affine)
        if affine is None or not behind:
            continue
        taken_up = (_takes_up(each, affine) and each.is_like(node) for each in behind)
        is_free = all(calls[id(each.head)] == 1 and each.name not in folded for each in behind)
        if all(taken_up) and is_free:
            mapping[edge] = node.inputs[0]
            for each in behind:
                operations = (_operation(node, affine), *each.operations)
                folded[each.name] = dataclasses.replace(each, operations=operations)
                absorbed[each.name] = [node.name]
    return absorb_nodes(graph, folded, absorbed, mapping)


def _takers(
    consumers: Mapping[Edge, Sequence[Node]], outputs: Container[Edge], node: Node, affine: Affine
) -> Sequence[Node]:
    """Returns the nodes that take the output of an affine, alone or as a factor of a product."""
    edge = Edge(node.name)
    behind = [] if edge in outputs else consumers.get(edge, [])
    if len(behind) != 1 or not _PRODUCT(behind[0].head):
        return behind
    product, is_factor = behind[0], not affine.beta.any() and np.ptp(affine.gamma) == 0
    is_once = list(product.inputs).count(edge) == 1 and len(product.inputs) == 2
    is_whole = product.shapes[0][-1] == affine.gamma.size and product.is_like(node)
    if not (is_factor and is_once and is_whole) or Edge(product.name) in outputs:
        return []
    return consumers.get(Edge(product.name), [])


def constant_affine(node: Node) -> Affine | None:
    """Returns the factor and the offset of a node, or None if it has none or they train."""
    if node.is_input or len(node.operations) != 1 or not BATCH_NORM(node.head):
        return None
    norm: Any = node.head
    if norm.trainable and norm.trainable_variables:
        return None
    if norm.trainable and type(norm) is keras.layers.BatchNormalization:
        return None  # without scale and center it still uses the statistics of the batch
    mean, variance = (
        ops.convert_to_numpy(value).astype("float64")
        for value in (norm.moving_mean, norm.moving_variance)
    )
    gamma = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        gamma = gamma * ops.convert_to_numpy(norm.gamma)
    beta = np.zeros_like(gamma) if norm.beta is None else ops.convert_to_numpy(norm.beta)
    return Affine(gamma, beta - mean * gamma)


def _takes_up(node: Node, affine: Affine) -> bool:
    """Returns whether a layer can absorb an affine of its input in its kernel."""
    layer = node.head
    if len(node.inputs) != 1 or not _KERNEL(layer) or getattr(layer, "groups", 1) != 1:
        return False
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    return not np.any(affine.beta) or getattr(layer, "padding", "valid") == "valid"


def _operation(node: Node, affine: Affine) -> InputAffine:
    gamma, beta = (value.astype("float32").tolist() for value in affine)
    return InputAffine(gamma, beta, node.head.name)
