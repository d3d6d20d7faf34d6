"""Rules that join or cancel reshapes, or move operations before them."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_qat.graph import Matcher, any_of, layer_of
from keras_qat.graph.graph import Shape
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.moving.reshape import RESHAPE_OPERATION
from keras_qat.passes.canonical.edits import Edit, Pair
from keras_qat.passes.move_normalized_axes import on_last_axis


def _flattens_in_order(operation: Any) -> bool:
    is_flatten = type(operation) is keras.layers.Flatten
    return is_flatten and operation.data_format == "channels_last"


RESHAPE = any_of(
    layer_of(keras.layers.Reshape),
    Matcher("keras.layers.Flatten", _flattens_in_order),
    RESHAPE_OPERATION,
)


def remove_reshape(pair: Pair) -> Edit | None:
    """Removes a reshape to the shape that the tensor has."""
    source, shape = pair.node.inputs[0], pair.node.shapes[0]
    is_same = pair.view.graph.shape(source) == shape and None not in shape[1:]
    return pair.removed(source) if RESHAPE(pair.node.head) and is_same else None


def join_reshapes(pair: Pair) -> Edit | None:
    """Joins two reshapes, since both keep the order of the elements."""
    if not RESHAPE(pair.node.head) or not RESHAPE(pair.before.head) or not pair.can_join:
        return None
    shape = pair.node.shapes[0]
    if not _has_samples_of(pair.source_shape, shape):
        return None
    if pair.source_shape == shape:
        return pair.removed(pair.source)
    return pair.joined(keras.layers.Reshape(shape[1:]))


def function_over_reshape(pair: Pair) -> Edit | None:
    """Moves an element-wise function before a reshape, if two reshapes become adjacent."""
    if not RESHAPE(pair.before.head) or not pair.can_swap:
        return None
    node = pair.node
    while FUSED(node.head) or function_of(node.head) is not None:
        follower = pair.view.follower(node)
        if follower is None or len(follower.inputs) != 1:
            return None
        if RESHAPE(follower.head):
            return pair.swapped()
        node = follower
    return None


def norm_over_reshape(pair: Pair) -> Edit | None:
    """Moves a batch normalization before a reshape that keeps the channels, if it is fused there.

    The reshape merges or splits other axes, over which the statistics are anyway.
    """
    if not RESHAPE(pair.before.head) or not BATCH_NORM(pair.node.head) or not pair.can_swap:
        return None
    source, view = pair.view.graph.nodes[pair.source.node], pair.view
    is_kept = pair.source_shape[-1] == pair.before.shapes[0][-1] is not None
    if not is_kept or view.follower(source) is not pair.before:
        return None
    if not view.absorbs(source, pair.node):
        return None
    return pair.swapped(operation=on_last_axis(pair.node.head, pair.source_shape))


def _has_samples_of(a: Shape, b: Shape) -> bool:
    """Returns whether both shapes have one batch, and samples of one known size."""
    if not a or not b or a[0] != b[0]:
        return False
    sizes = [math.prod(-1 if size is None else size for size in shape[1:]) for shape in (a, b)]
    return None not in (*a[1:], *b[1:]) and sizes[0] == sizes[1]
