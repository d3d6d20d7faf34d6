"""Rules that join paddings."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_qat.graph import Edge, Node
from keras_qat.graph.graph import map_edges
from keras_qat.layers.moving.pad import PADDING, ZERO_PADDING, padding_value, pads_of
from keras_qat.passes.canonical.edits import Edit, Pair

# Padding layers by the rank of the padded tensor.
_LAYERS = {
    3: keras.layers.ZeroPadding1D,
    4: keras.layers.ZeroPadding2D,
    5: keras.layers.ZeroPadding3D,
}


def remove_padding(pair: Pair) -> Edit | None:
    """Removes a padding that adds no values."""
    if not _is_read(pair.node) or np.any(pads_of(pair.node)):
        return None
    return pair.removed(pair.node.inputs[0])


def join_paddings(pair: Pair) -> Edit | None:
    """Joins two paddings with one constant by adding their widths.

    Reflections are not joined: two reflections differ from one reflection by the sum.
    """
    before, node = pair.before, pair.node
    if not _is_constant(node) or not _is_constant(before) or not pair.can_swap:
        return None
    if padding_value(node) != padding_value(before):
        return None
    pads = np.add(pads_of(before), pads_of(node)).tolist()
    if not np.any(pads[0] + pads[-1]) and padding_value(node) == 0 and len(pads) in _LAYERS:
        inner = [tuple(pair) for pair in pads[1:-1]]
        return pair.joined(_LAYERS[len(pads)](inner[0] if len(inner) == 1 else tuple(inner)))
    operation = before if ZERO_PADDING(node.head) else node
    made = dataclasses.replace(
        node,
        operations=(type(operation.head)([tuple(pair) for pair in pads], "constant"),),
        inputs=(pair.source,),
        arguments=map_edges(lambda _: pair.source, operation.arguments),
    )
    return Edit((made.made_of(before, node),), Edge(node.name))


def _is_read(node: Node) -> bool:
    """Returns whether a node is a padding with channels last."""
    layout = getattr(node.head, "data_format", "channels_last")
    return PADDING(node.head) and layout == "channels_last"


def _is_constant(node: Node) -> bool:
    is_single = len(node.inputs) == 1  # without a tensor to pad with
    return is_single and _is_read(node) and getattr(node.head, "mode", "constant") == "constant"
