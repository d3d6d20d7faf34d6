"""Calls with `training=False`."""

from __future__ import annotations

import keras

from keras_qat.graph import Graph, Node


def is_inference_call(node: Node) -> bool:
    """Returns whether an operation is called with `training=False`."""
    return node.arguments[1].get("training") is False


def batch_norm_calls(graph: Graph) -> set[tuple[int, bool]]:
    """Finds the batch normalizations of a graph.

    Args:
        graph: A graph of Keras operations.

    Returns:
        The `id` of each batch normalization, and whether a call of it has `training=False`.
    """
    return {
        (id(node.head), is_inference_call(node))
        for node in graph.nodes.values()
        if isinstance(node.head, keras.layers.BatchNormalization)
    }
