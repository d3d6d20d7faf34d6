"""Rules that join ReLUs, and that move a ReLU before operations that it commutes with."""

from __future__ import annotations

import math

import keras

from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.activation_names import FUSED, activation_name
from keras_qat.layers.moving.pad import PADDING, padding_value
from keras_qat.layers.moving.transpose import TRANSPOSE
from keras_qat.passes.canonical.edits import Edit, Pair
from keras_qat.passes.canonical.reshapes import RESHAPE

_LIMITS = {"relu": math.inf, "relu6": 6.0}
# Each output equals an input, and larger inputs never make smaller outputs.
_MAXIMA = any_of(
    layer_of(
        keras.layers.GlobalMaxPooling1D,
        keras.layers.GlobalMaxPooling2D,
        keras.layers.MaxPooling1D,
        keras.layers.MaxPooling2D,
    ),
    operation_named("MaxPool"),
)
_MOVES = any_of(_MAXIMA, RESHAPE, TRANSPOSE)


def join_relus(pair: Pair) -> Edit | None:
    """Joins two operations of ReLU and ReLU6. The lower limit counts."""
    before, node = pair.before, pair.node
    if not FUSED(node.head) or not FUSED(before.head) or not pair.can_join:
        return None
    is_lower = _limit(before) <= _limit(node)
    if pair.can_swap:
        return pair.joined(before.head if is_lower else node.head)
    return pair.removed(node.inputs[0]) if is_lower else None


def relu_over_moves(pair: Pair) -> Edit | None:
    """Moves a ReLU before a max pooling, reshape, transposition or padding, if it is fused there.

    A ReLU never decreases and keeps each element in its place. It must not change
    the padded values.
    """
    if not FUSED(pair.node.head) or not pair.can_swap:
        return None
    node, view = pair.before, pair.view
    while _commutes(node, pair.node):
        node = view.graph.nodes[node.inputs[0].node]
        follower = view.follower(node)
        if follower is None:
            return None
        if FUSED(node.head) or view.absorbs(node, pair.node):
            return pair.swapped()
    return None


def _commutes(node: Node, relu: Node) -> bool:
    """Returns whether a ReLU may move before a node without a change of the result."""
    if len(node.inputs) != 1:
        return False
    if not PADDING(node.head):
        return _MOVES(node.head)
    is_constant = getattr(node.head, "mode", "constant") == "constant"
    return not is_constant or 0 <= padding_value(node) <= _limit(relu)


def _limit(node: Node) -> float:
    return _LIMITS[activation_name(node.head) or ""]
