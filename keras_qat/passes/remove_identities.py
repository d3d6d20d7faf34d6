"""Removes operations that return their input."""

from __future__ import annotations

import keras
from keras import tree

from keras_qat.graph import Edge, Graph, Node, any_of, layer_of, operation_named
from keras_qat.layers.core.activation_names import activation_name
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

# Exactly these layers: a custom layer may have a `rate` that means something else.
_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)

_CAST = operation_named("Cast", "ConvertToTensor")
_CONCATENATION = any_of(layer_of(keras.layers.Concatenate), operation_named("Concatenate"))


def remove_identities(graph: Graph) -> Graph:
    """Removes operations that return their input, at training and at inference.

    Matches: `Identity`, `Activation("linear")`, dropout with a rate of 0, a cast between floating
    types or to the type that the tensor has, a cast of the model's integer input to real values,
    and the concatenation of a single tensor.
    Builds: nothing; consumers take the input instead.
    Why: each would be an operator that copies a tensor, and would keep an activation from being
    fused into a layer. Dropout and noise stay: they act at training, and make no operator.

    Args:
        graph: The graph.

    Returns:
        A graph without them.
    """
    casted = _casted_inputs(graph)

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        del rewriting
        before = graph.nodes[node.name]  # its inputs have the dtypes of the user's model
        does_nothing = (
            _does_nothing(node.head)
            or _returns_its_input(graph, before)
            or (_CAST(node.head) and before.inputs[0] in casted)
        )
        return Replacement([], node.inputs[:1]) if does_nothing else None

    return replace_nodes(graph, write)


def _casted_inputs(graph: Graph) -> set[Edge]:
    """Returns the integer inputs of the model that only casts to a floating type take."""
    return {
        edge
        for edge, behind in graph.consumers().items()
        if graph.nodes[edge.node].is_input
        and keras.backend.is_int_dtype(graph.dtype(edge))
        and edge not in graph.output_edges
        and all(_CAST(node.head) and _is_float(node.dtypes[0]) for node in behind)
    }


def _returns_its_input(graph: Graph, node: Node) -> bool:
    """Returns whether the type or number of its inputs makes an operation return its input."""
    if len(tree.flatten(node.arguments)) > 1:
        return False
    (edge,) = node.inputs
    dtypes = graph.dtype(edge), node.dtypes[0]
    # All floating types become float32.
    keeps_dtype = dtypes[0] == dtypes[1] or all(map(_is_float, dtypes))
    return (_CAST(node.head) and keeps_dtype) or _CONCATENATION(node.head)


def _is_float(dtype: str) -> bool:
    return keras.backend.is_float_dtype(dtype)


def _does_nothing(operation) -> bool:
    """Returns whether an operation returns its input: linear, or dropout of rate 0."""
    is_dropout = type(operation) in _DROPOUTS
    return activation_name(operation) == "linear" or (is_dropout and operation.rate == 0)
