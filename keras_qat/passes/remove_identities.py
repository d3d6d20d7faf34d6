"""Drops what does nothing."""

from __future__ import annotations

import keras
from keras import tree

from keras_qat.graph import Edge, Graph, Node, any_of, layer_of, operation_named
from keras_qat.layers.activation_names import activation_name

# Exactly these: a custom layer may have a `rate` that means something else.
_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
)

_CAST = operation_named("Cast")
_CONCATENATION = any_of(layer_of(keras.layers.Concatenate), operation_named("Concatenate"))


def remove_identities(graph: Graph) -> Graph:
    """Removes operations that return their input, at training and at inference.

    Matches: `Identity`, `Activation("linear")`, dropout with a rate of 0, a cast to the type that
    the tensor has, and the concatenation of a single tensor.
    Builds: nothing; consumers take the input instead.
    Why: each would be an operator that copies a tensor, and would keep an activation from the
    layer it belongs to. Dropout and noise stay: they matter at training, and make no operator.

    Args:
        graph: The graph.

    Returns:
        A graph without them.
    """
    mapping: dict[Edge, Edge] = {}
    kept = []
    for node in graph.nodes.values():
        if node.is_input or not (_does_nothing(node.head) or _returns_its_input(graph, node)):
            kept.append(node)
        else:
            source = node.inputs[0]
            mapping[Edge(node.name)] = mapping.get(source, source)
    return graph.replace(kept, mapping)


def _returns_its_input(graph: Graph, node: Node) -> bool:
    """Whether it is the tensor it is called with that makes an operation do nothing."""
    if len(tree.flatten(node.arguments)) > 1:
        return False
    (edge,) = node.inputs
    has_dtype = graph.nodes[edge.node].dtypes[edge.index] == node.dtypes[0]
    return (_CAST(node.head) and has_dtype) or _CONCATENATION(node.head)


def _does_nothing(operation) -> bool:
    is_dropout = type(operation) in _DROPOUTS
    return activation_name(operation) == "linear" or (is_dropout and operation.rate == 0)
