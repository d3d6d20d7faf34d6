"""Drops what does nothing."""

from __future__ import annotations

import keras

from keras_qat.graph import Edge, Graph
from keras_qat.layers.activation_names import activation_name

# Exactly these: a custom layer may have a `rate` that means something else.
_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
)


def remove_identities(graph: Graph) -> Graph:
    """Removes operations that return their input, at training and at inference.

    Matches: `Identity`, `Activation("linear")`, and dropout with a rate of 0.
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
        if node.is_input or not _does_nothing(node.head):
            kept.append(node)
        else:
            source = node.inputs[0]
            mapping[Edge(node.name)] = mapping.get(source, source)
    return graph.replace(kept, mapping)


def _does_nothing(operation) -> bool:
    is_dropout = type(operation) in _DROPOUTS
    return activation_name(operation) == "linear" or (is_dropout and operation.rate == 0)
