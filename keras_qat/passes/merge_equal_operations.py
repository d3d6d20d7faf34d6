"""Merges equal activations and poolings of one tensor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import keras

from keras_qat.graph import Edge, Graph, Node, layer_of
from keras_qat.layers import QPaddingMask
from keras_qat.layers.core.activation_names import FUSED, activation_name
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.passes.rewriting import absorb_nodes

_POOLING = layer_of(
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
)


def merge_equal_operations(graph: Graph) -> Graph:
    """Computes an activation or a pooling once if several layers apply it to the same tensor.

    Matches: element-wise functions, poolings and masks of padding with the same arguments and the
    same input as an earlier one. An output of the model keeps a separate operator.
    Builds: nothing; consumers take the output of the first one instead.
    Why: the separable convolutions of NASNet each begin with a ReLU of their shared input. Each
    ReLU would be an operator and a tensor, and could not be fused into the layer before.

    Args:
        graph: The graph.

    Returns:
        A graph without the others.
    """
    first: dict[Hashable, Edge] = {}
    mapping: dict[Edge, Edge] = {}
    absorbed: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        key, edge = _key(node, mapping), Edge(node.name)
        if key in first and edge not in graph.output_edges:
            mapping[edge] = first[key]
            absorbed.setdefault(first[key].node, []).append(node.name)
        elif key is not None:
            first.setdefault(key, edge)
    return absorb_nodes(graph, {}, absorbed, mapping)


def _key(node: Node, mapping: Mapping[Edge, Edge]) -> Hashable:
    """Returns the arguments and the input of a function or pooling; None for other nodes."""
    if node.is_input or len(node.operations) != 1 or len(node.inputs) != 1:
        return None
    source = mapping.get(node.inputs[0], node.inputs[0]), node.scheme is None
    if FUSED(node.head):
        return activation_name(node.head), source
    if isinstance(node.head, QPaddingMask):
        return type(node.head), node.head.padding, source
    if _POOLING(node.head):
        config = {key: value for key, value in node.head.get_config().items() if key != "name"}
        return type(node.head), repr(config), source
    function = function_of(node.head)
    return None if function is None else (function.name, tuple(function.options), source)
