"""Finds the masks of `Masking` layers among the operations of a model."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node, layer_of, operation_named
from keras_qat.layers.decompositions.padding_mask import mask_layer, padding_of
from keras_qat.layers.elementwise.binary import operands_of, value_of
from keras_qat.passes.rewriting import absorb_nodes

_MASKING = layer_of(keras.layers.Masking)
_ANY, _DIFFERS = operation_named("Any"), operation_named("NotEqual")


def with_padding_masks(graph: Graph) -> Graph:
    """Writes the mask that Keras computed for a `Masking` as one layer.

    Keras adds `ops.any(ops.not_equal(x, mask_value), axis=-1)` to a functional model if the next
    layer has a `mask` argument.

    Args:
        graph: The graph.

    Returns:
        The graph; the same object if there is no such mask.
    """
    layers = {
        (node.inputs[0], padding_of(node.head)): node.head
        for node in graph.nodes.values()
        if not node.is_input and _MASKING(node.head)
    }
    made: dict[str, Node] = {}
    absorbed: dict[str, list[str]] = {}
    consumers = graph.consumers() if layers else {}
    for node in graph.nodes.values() if layers else ():
        compared = _compared(graph, node)
        if compared in layers:
            source = node.inputs[0]
            layer = mask_layer(layers[compared], node.name)
            call = Node.call(layer, node.name, compared[0], node.shapes[0], "bool")
            made[node.name] = dataclasses.replace(call, scheme=node.scheme)
            is_unused = len(consumers[source]) == 1 and source not in graph.output_edges
            absorbed[node.name] = [source.node] if is_unused else []
    return absorb_nodes(graph, made, absorbed, {})


def _compared(graph: Graph, node: Node) -> tuple[Edge, float] | None:
    """Returns the tensor and the number of `ops.any(ops.not_equal(x, number), axis=-1)`."""
    if node.is_input or not _ANY(node.head) or node.head.keepdims:
        return None
    source = graph.nodes[node.inputs[0].node]
    if source.is_input or not _DIFFERS(source.head):
        return None
    first, second = operands_of(source)
    is_last = list(node.head.axis or ()) in ([-1], [len(source.shapes[0]) - 1])
    if not is_last or not isinstance(first, Edge) or isinstance(second, Edge):
        return None
    value = value_of(second)
    return (first, float(value.item())) if value.size == 1 else None
