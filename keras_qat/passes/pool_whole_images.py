"""Gives the average over a whole image a range of its own."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Graph, Node


def pool_whole_images(graph: Graph) -> Graph:
    """Writes an `AveragePooling2D` over the whole image as a `GlobalAveragePooling2D`.

    Matches: an `AveragePooling2D` whose window covers its input.
    Builds: a `GlobalAveragePooling2D` that keeps the dimensions.
    Why: LiteRT's AVERAGE_POOL_2D has the range of its input, but the mean of an image has a much
    narrower one than its largest pixel: most of the 8 bits would be lost. MEAN, which a global
    pooling becomes, has a range of its own.

    Args:
        graph: The graph.

    Returns:
        A graph in which only windows smaller than the image are pooled by `AveragePooling2D`.
    """
    made: dict[int, keras.layers.Layer] = {}
    nodes = []
    for node in graph.nodes.values():
        if _covers_image(graph, node):
            pool = node.head
            layer = keras.layers.GlobalAveragePooling2D(
                data_format=pool.data_format, keepdims=True, name=pool.name
            )
            node = dataclasses.replace(node, operations=(made.setdefault(id(pool), layer),))
        nodes.append(node)
    return graph.replace(nodes, {})


def _covers_image(graph: Graph, node: Node) -> bool:
    if type(node.head) is not keras.layers.AveragePooling2D:
        return False
    axes = slice(1, 3) if node.head.data_format == "channels_last" else slice(2, 4)
    sizes, outputs = graph.shape(node.inputs[0])[axes], node.shapes[0][axes]
    if outputs != (1, 1) or None in sizes:
        return False
    return all(window >= size for window, size in zip(node.head.pool_size, sizes, strict=True))
