"""Moves the axis of a batch normalization to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.graph import Graph, Node
from keras_qat.layers.core.drop_in import copy_variables, remade
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.passes.rewriting import rewrite_nodes


def move_normalized_axes(graph: Graph) -> Graph:
    """Writes `BatchNormalization(axis=1)` as one over the last axis, between two transpositions.

    Matches: a `BatchNormalization` over another axis than the last one.
    Builds: a transposition that moves the axis to the end, the normalization with a copy of the
    weights, and the transposition back.
    Why: LiteRT's operators have one factor for each channel along the last axis only.

    Args:
        graph: The graph.

    Returns:
        A graph in which all batch normalizations are over the last axis.
    """
    return rewrite_nodes(graph, _written)


def _written(node: Node) -> Callable[[Any], Any] | None:
    norm = node.head
    if type(norm) is not keras.layers.BatchNormalization or BATCH_NORM(norm):
        return None
    axis, shape = norm.axis % len(node.shapes[0]), list(node.shapes[0])
    shape.append(shape.pop(axis))
    layer = on_last_axis(norm, shape)

    def moved(x, mask=None):
        del mask  # Keras passes `mask=None`
        return ops.moveaxis(layer(ops.moveaxis(x, axis, -1)), -1, axis)

    return moved


def on_last_axis(norm: Any, shape: Sequence[int | None]) -> Any:
    """Returns a batch normalization over the last axis, with copies of the weights of another.

    Args:
        norm: A `BatchNormalization` or a `ChannelAffine`.
        shape: Shape of the input.
    """
    layer = remade(type(norm), norm, axis=-1)
    layer.build(shape)
    copy_variables(norm, layer)
    return layer
