"""Folds zero paddings into the convolutions after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.graph import Edge, Graph, Node, layer_of
from keras_qat.layers.core.drop_in import copy_variables, remade
from keras_qat.passes.rewriting import absorb_nodes

_PADDING = layer_of(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D)
_CONVOLUTION = layer_of(
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


def fold_padding(graph: Graph) -> Graph:
    """Folds a zero padding into the convolution after it, if the result is the same.

    Matches: a `ZeroPadding1D` or `ZeroPadding2D` whose only consumer is a convolution without
    its own padding, if `padding="same"` would put as many zeros in the same places. An example
    is the `ZeroPadding2D(((0, 1), (0, 1)))` before a stride of 2 in MobileNet.
    Builds: the convolution with `padding="same"` and copies of its weights, under its name.
    Why: in LiteRT a padding is an operator that copies the whole tensor.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer paddings.
    """
    folded = _keep_shared(graph, _candidates(graph))
    mapping = {edge: graph.nodes[edge.node].inputs[0] for edge in folded.values()}
    layers: dict[int, keras.layers.Layer] = {}
    made = {}
    for name, edge in folded.items():
        node = graph.nodes[name]
        if id(node.head) not in layers:
            layers[id(node.head)] = _same_padding(node.head, graph.shape(mapping[edge]))
        made[name] = dataclasses.replace(node, operations=(layers[id(node.head)],))
    absorbed = {name: [edge.node] for name, edge in folded.items()}
    return absorb_nodes(graph, made, absorbed, mapping)


def _candidates(graph: Graph) -> dict[str, Edge]:
    """Returns the padded tensor of each convolution that can pad by itself."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    found = {}
    for node in graph.nodes.values():
        if node.is_input or not _CONVOLUTION(node.head) or node.head.padding != "valid":
            continue
        (edge,) = node.inputs
        padding = graph.nodes[edge.node]
        if padding.is_input or not _PADDING(padding.head) or edge in outputs:
            continue
        if not padding.is_like(node):
            continue
        if len(consumers[edge]) == 1 and _pads_the_same(padding, node, graph):
            found[node.name] = edge
    return found


def _pads_the_same(padding: Node, node: Node, graph: Graph) -> bool:
    """Returns whether a padding equals that of a layer with padding 'same'."""
    layer, shape = node.head, graph.shape(padding.inputs[0])
    formats = {layer.data_format, getattr(padding.head, "data_format", "channels_last")}
    if formats != {"channels_last"} or None in shape[1:-1]:
        return False
    amounts = np.reshape(padding.head.padding, (-1, 2)).tolist()
    return amounts == _same_amounts(layer, shape[1:-1])


def _same_amounts(layer: Any, sizes: Sequence[Any]) -> list[list[int]]:
    """Returns the numbers of zeros that `padding="same"` puts before and after each axis."""
    amounts = []
    arguments = zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    for size, window, stride, dilation in arguments:
        reach = (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1
        total = max(reach - size, 0)
        amounts.append([total // 2, total - total // 2])
    return amounts


def _keep_shared(graph: Graph, found: dict[str, Edge]) -> dict[str, Edge]:
    """Drops convolutions that are also called without a padding to fold."""
    others = {id(node.head) for name, node in graph.nodes.items() if name not in found}
    return {name: edge for name, edge in found.items() if id(graph.nodes[name].head) not in others}


def _same_padding(layer: Any, shape: Sequence[int | None]) -> Any:
    """Makes the layer with padding 'same'."""
    made = remade(type(layer), layer, padding="same")
    made.build(shape)
    copy_variables(layer, made)
    return made
