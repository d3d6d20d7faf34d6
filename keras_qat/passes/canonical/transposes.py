"""Rules that join or cancel transpositions."""

from __future__ import annotations

import keras

from keras_qat.graph import Node
from keras_qat.layers.core.activation_names import activation_of
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.moving.transpose import TRANSPOSE, axes_of
from keras_qat.passes.canonical.edits import Edit, Pair
from keras_qat.passes.recognize_functions import is_elementwise

_SOFTMAX = activation_of("softmax", "log_softmax")


def remove_transpose(pair: Pair) -> Edit | None:
    """Removes a transposition that leaves all axes in their order."""
    if not TRANSPOSE(pair.node.head) or not _is_ordered(axes_of(pair.node)):
        return None
    return pair.removed(pair.node.inputs[0])


def join_transposes(pair: Pair) -> Edit | None:
    """Joins two transpositions, since two permutations in sequence are one permutation."""
    if not TRANSPOSE(pair.node.head) or not TRANSPOSE(pair.before.head) or not pair.can_join:
        return None
    first = axes_of(pair.before)
    axes = tuple(first[axis] for axis in axes_of(pair.node))
    if _is_ordered(axes):
        return pair.removed(pair.source)
    is_batch_kept = axes[0] == 0  # a `Permute` keeps it
    return pair.joined(keras.layers.Permute(axes[1:])) if is_batch_kept else None


def function_over_transpose(pair: Pair) -> Edit | None:
    """Moves a function before a transposition, if two transpositions become adjacent.

    The function is element-wise, or works along an axis that stays the last one.
    """
    if not TRANSPOSE(pair.before.head) or not pair.can_swap:
        return None
    node, axes = pair.node, axes_of(pair.before)
    while node.shapes == pair.before.shapes and _commutes(node, axes):
        follower = pair.view.follower(node)
        if follower is None or len(follower.inputs) != 1:
            return None
        if TRANSPOSE(follower.head):
            return pair.swapped()
        node = follower
    return None


def _commutes(node: Node, axes: tuple[int, ...]) -> bool:
    """Returns whether a transposition may move past a node."""
    is_along_last = BATCH_NORM(node.head) or _SOFTMAX(node.head)
    return is_elementwise(node) or (is_along_last and axes[-1] == len(axes) - 1)


def _is_ordered(axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(axes)))
