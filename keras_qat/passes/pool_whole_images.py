"""Gives the average over a whole sequence or image its own range."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_qat.graph import Graph, Node, any_of, layer_of, operation_named
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

_WINDOWS = any_of(
    layer_of(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D),
    operation_named("AveragePool"),
)
_ADAPTIVE = any_of(
    layer_of(keras.layers.AdaptiveAveragePooling1D, keras.layers.AdaptiveAveragePooling2D),
    operation_named("AdaptiveAveragePool"),
)
# Global poolings by the rank of the pooled tensor.
_GLOBAL = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}


def pool_whole_images(graph: Graph) -> Graph:
    """Writes an `AveragePooling2D` over the whole image as a `GlobalAveragePooling2D`.

    Matches: an average pooling, or an adaptive one, whose window covers its input. The input may
    be a sequence too.
    Builds: a global average pooling that keeps the dimensions.
    Why: LiteRT's AVERAGE_POOL_2D has the range of its input. The mean of an image has a much
    narrower range than its pixels, so most of the 8 bits would be lost. A global pooling becomes
    MEAN, which has its own range.

    Args:
        graph: The graph.

    Returns:
        A graph in which average poolings have windows smaller than their input.
    """
    made: dict[int, keras.layers.Layer] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        del rewriting
        if not _covers_input(graph, node):
            return None
        pool = node.head
        layer = _GLOBAL[len(node.shapes[0])](
            data_format=pool.data_format, keepdims=True, name=pool.name
        )
        layer = made.setdefault(id(pool), layer)
        return Replacement([dataclasses.replace(node, operations=(layer,))])

    return replace_nodes(graph, write)


def _covers_input(graph: Graph, node: Node) -> bool:
    """Returns whether the window of a pooling covers the whole image."""
    pools_windows = _WINDOWS(node.head)
    if len(node.shapes[0]) not in _GLOBAL or not (pools_windows or _ADAPTIVE(node.head)):
        return False
    axes = slice(1, -1) if node.head.data_format == "channels_last" else slice(2, None)
    sizes, outputs = graph.shape(node.inputs[0])[axes], node.shapes[0][axes]
    if set(outputs) != {1} or None in sizes:
        return False
    if not pools_windows:
        return True
    windows = np.broadcast_to(node.head.pool_size, len(sizes)).tolist()
    return all(window >= size for window, size in zip(windows, sizes, strict=True))
