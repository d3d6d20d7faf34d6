"""Writes paddings of minus infinity before max poolings as symmetric paddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, any_of, layer_of, operation_named
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.rewriting import rewrite_nodes

_PADDING = operation_named("Pad")
_MAXIMUM = any_of(
    layer_of(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D), operation_named("MaxPool")
)


def pad_maxima(graph: Graph) -> Graph:
    """Writes a padding of minus infinity before a max pooling as a symmetric padding.

    Matches: `ops.pad` with a constant of minus infinity that only max poolings take, if their
    windows are at least twice as long as the padding.
    Builds: `ops.pad` with `mode="symmetric"`. Each window that reaches into the padding also has
    the values that the padding repeats, so its maximum is the same.
    Why: no integer stands for minus infinity.

    Args:
        graph: The graph.

    Returns:
        A graph without these paddings.
    """
    consumers, outputs = graph.consumers(), set(graph.output_edges)

    def write(node: Node) -> Callable[..., Any] | None:
        if not _PADDING(node.head) or node.head.mode != "constant" or not _is_lowest(node):
            return None
        takers = consumers.get(Edge(node.name), [])
        widths = node.head.pad_width
        fits = all(_covers(taker, widths) for taker in takers)
        if not takers or not fits or Edge(node.name) in outputs or not _has(graph, node, widths):
            return None
        return lambda x, *_, **__: ops.pad(x, widths, mode="symmetric")

    return rewrite_nodes(graph, write)


def _is_lowest(node: Node) -> bool:
    args, kwargs = node.arguments
    value = args[1] if len(args) > 1 else kwargs.get("constant_values")
    return value is not None and not isinstance(value, Edge) and bool(value_of(value) == -np.inf)


def _covers(node: Node, widths: Sequence[Sequence[int]]) -> bool:
    """Returns whether each window of a max pooling has the values that its padding repeats."""
    head = node.head
    if not _MAXIMUM(head) or head.data_format == "channels_first" or head.padding != "valid":
        return False
    sizes = np.broadcast_to(head.pool_size, len(widths) - 2)
    windows = (1, *sizes.tolist(), 1)
    return all(2 * max(pads) <= size for pads, size in zip(widths, windows, strict=True))


def _has(graph: Graph, node: Node, widths: Sequence[Sequence[int]]) -> bool:
    """Returns whether the tensor has as many values as the padding repeats."""
    sizes = graph.shape(node.inputs[0])[1:]
    return all(
        size is not None and max(pads) <= size for pads, size in zip(widths[1:], sizes, strict=True)
    )
