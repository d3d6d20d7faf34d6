"""Findings about operators that could be fused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_qat.checking.findings import WARNING, Finding, listing
from keras_qat.checking.linking import LinkedModel
from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers import (
    QBatchNormalization,
    QHardSwish,
    QLeakyReLU,
    QLookup,
    QPReLU,
    QReLU,
    UnfusedBatchNormalization,
)
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.core.registry import registered_rules
from keras_qat.litert.format.operators import with_trait
from keras_qat.passes.substitute_activations import STAND_INS

# A relu cannot replace these functions.
_GATES = {"hard_sigmoid", "log_sigmoid", "sparse_sigmoid"}
_OWN_NAMES = {QHardSwish: "hard_silu", QLeakyReLU: "leaky_relu", QPReLU: "PReLU", QReLU: "relu"}


def standalone_activations(linked: LinkedModel) -> Iterator[Finding]:
    """Finds activations that are separate operators, where a fused activation would cost nothing.

    Gates and softmax are not reported.

    Args:
        linked: The model.

    Yields:
        One finding for each function.
    """
    graph, found = linked.graph, dict[str, list[Node]]()
    fusing, consumers = _fusing(), graph.consumers()
    for node in graph.nodes.values():
        name = None if node.is_input else _activation(node.head)
        if name is None or node.head.scheme is None:
            continue
        if _could_fuse(graph, consumers, fusing, node.inputs[0], moved=name == "relu"):
            found.setdefault(name, []).append(node)
    for name, nodes in found.items():
        operators = dict.fromkeys(code for node in nodes for code in node.head.operators)
        if name == "relu":
            what, fix = _MOVED_RELU
        else:
            what, fix = _other_activation(name, tuple(operators))
        yield from _grouped("standalone-activation", nodes, what, fix)


_MOVED_RELU = (
    "A ReLU that is not fused into the layer with the kernel costs a separate requantization, "
    "since LiteRT's operators that move values cannot fuse it",
    "Apply it directly to the output of the layer with the kernel, before values are pooled, "
    "joined or moved: the result is the same, and it costs nothing there.",
)


def _other_activation(name: str, operators: Sequence[str]) -> tuple[str, str]:
    """Returns the message and the fix for an activation that is not a ReLU."""
    fix = "Use relu or relu6, which costs nothing"
    if name in STAND_INS:
        fix += (
            '; or pass activations="substitute" to `quantize_model`, for operators without a table'
        )
    what = (
        f"{name} is a separate operation ({', '.join(operators)}), where a relu or relu6 would "
        "be part of the layer before it"
    )
    return what, f"{fix}. Train after it."


def _activation(layer: Any) -> str | None:
    """Returns the name of the function of an activation layer, or None for any other layer."""
    if isinstance(layer, QLookup):
        name = layer.function.name
        if name == "parametrized_relu":
            return "a ReLU with parameters"
        return name if name in STAND_INS and name not in _GATES else None
    return _OWN_NAMES.get(type(layer))


def _fusing() -> set[type]:
    """Returns the classes of layers that can fuse a ReLU after them."""
    relu = keras.layers.ReLU()
    rules = registered_rules()
    return {each.layer for each in rules if any(follows(relu) for follows in each.followers)}


def _could_fuse(
    graph: Graph, consumers: Any, fusing: set[type], edge: Edge, *, moved: bool
) -> bool:
    """Returns whether the node that makes a tensor could have fused an activation instead.

    Args:
        graph: The graph.
        consumers: Its consumers.
        fusing: Classes of layers that can fuse an activation.
        edge: The input tensor of the activation.
        moved: Whether the activation may move before operators that only move values.
    """
    node = graph.nodes[edge.node]
    if node.is_input or len(consumers[edge]) > 1 or edge in graph.output_edges:
        return False
    if type(node.head) in fusing:
        return function_name(keras.activations.get(node.head.activation)) == "linear"
    if (
        not moved
        or not node.head.operators
        or not with_trait("commutes").issuperset(node.head.operators)
    ):
        return False
    return all(_could_fuse(graph, consumers, fusing, x, moved=True) for x in node.inputs)


def unfolded_batch_norms(linked: LinkedModel) -> Iterator[Finding]:
    """Finds batch normalizations that no layer with a kernel absorbs.

    Args:
        linked: The model.

    Yields:
        One finding for those that are a depthwise convolution, one for those with two operators.
    """
    alone: list[Node] = []
    unfused: list[Node] = []
    for node in linked.graph.nodes.values():
        if isinstance(node.head, UnfusedBatchNormalization):
            unfused.append(node)
        elif isinstance(node.head, QBatchNormalization) and not isinstance(
            node.head.batch_normalization, ChannelAffine
        ):
            alone.append(node)
    yield from _grouped(
        "unfolded-batch-norm",
        alone,
        "A batch normalization is folded only after a layer with a kernel whose output has no "
        "other consumer; these are a separate DEPTHWISE_CONV_2D",
        "Where accuracy allows it, normalize directly after a convolution or Dense layer, before "
        "its activation, pooling or addition.",
    )
    yield from _grouped(
        "unfolded-batch-norm",
        unfused,
        "A batch normalization that must not be fused is a separate MUL and ADD, with one "
        "scale for all channels",
        "Use `keras.layers.BatchNormalization`, which is folded.",
    )


def _grouped(code: str, nodes: Sequence[Node], what: str, fix: str) -> Iterator[Finding]:
    """Yields one finding about all layers in a list, if there are any."""
    layers = tuple(dict.fromkeys(node.head.name for node in nodes))
    if layers:
        message = f"{what}: {listing(layers)}."
        yield Finding(WARNING, code, layers[0], nodes[0].name, message, fix, layers)
