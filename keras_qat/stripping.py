"""strip_quantization: converts a quantized model back to a plain Keras model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_qat.errors import NotQuantizedError
from keras_qat.graph import Edge, Graph, Node, build_model, read_model
from keras_qat.graph.reading import read_function
from keras_qat.graph.tracing import trace_layer
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.activation_names import function_name
from keras_qat.passes.recognize_functions import recognize_functions
from keras_qat.passes.rewriting import (
    Replacement,
    Rewriting,
    calls_in_a_row,
    replace_nodes,
    splice,
)


def strip_quantization(model: keras.Model) -> keras.Model:
    """Turns a quantized model, or a clone, into a plain Keras model with the trained weights.

    The result has no layer of `keras_qat`, so it loads without this package. A fused layer
    becomes the layers that it was made from, under their names. Operations that were not layers,
    such as a slice or a sum with a constant, become operations of `keras.ops`. Some rewrites
    cannot be undone: nested models stay open, and a padding that was folded into a convolution
    stays folded.

    Args:
        model: A model from `quantize_model` or `clone_model`, trained or not. It is not changed.

    Returns:
        A functional `keras.Model` that computes the values of `model` in float, before rounding.

    Raises:
        NotQuantizedError: If the model has no layer of this package.
        InvalidModelError: If the model cannot be read.

    Example:
    >>> import keras_qat
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(name="relu")])
    >>> plain = strip_quantization(keras_qat.quantize_model(model))
    >>> [layer.name for layer in plain.layers[1:]]
    ['conv', 'norm', 'relu']
    """
    graph = read_model(model)
    if not any(isinstance(node.head, QuantizedLayer) for node in graph.nodes.values()):
        raise NotQuantizedError(
            "The model has no quantization to remove.",
            layer=model.name,
            received=f"a {type(model).__name__} without layers of keras_qat",
            fix="Pass a model from `keras_qat.quantize_model` or `keras_qat.clone_model`.",
        )
    made: dict[int, Any] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        """Replaces a quantized layer by the Keras layers that compute the same in float."""
        if not isinstance(node.head, QuantizedLayer):
            return None
        layers = made.setdefault(id(node.head), node.head.to_keras())
        if layers is None:
            return splice(node, _in_operations(node, rewriting.graph()), rewriting)
        if not layers:
            return Replacement([], node.inputs[:1])
        return calls_in_a_row(node, layers, rewriting)

    stripped = replace_nodes(graph, write)
    # Activations that `decompose_activations` wrote as several operators become one again.
    whole = recognize_functions(stripped)
    return build_model(_join_activations(whole).check("stripping"))


def _join_activations(graph: Graph) -> Graph:
    """Makes activations from `split_activations` arguments of their layers again."""
    mapping: dict[Edge, Edge] = {}
    consumers = graph.consumers()
    calls: dict[int, list[Edge]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(Edge(node.name))
    for edges in calls.values():
        layer, behind = graph.nodes[edges[0].node].head, [consumers.get(each, []) for each in edges]
        # A shared layer may have an activation only if all of its calls have the same activation.
        functions = [_split_off(layer, followers) for followers in behind]
        is_one = len({*map(id, functions)}) == 1 and functions[0] is not None
        if is_one and not {*edges} & {*graph.output_edges}:
            layer.activation = functions[0]
            mapping |= {
                Edge(each.name): edge
                for edge, followers in zip(edges, behind, strict=True)
                for each in followers
            }
    kept = [node for node in graph.nodes.values() if Edge(node.name) not in mapping]
    return graph.replace(kept, mapping)


def _split_off(layer: Any, followers: Sequence[Node]) -> Any:
    """Returns the function that was split off a layer, if all consumers of its output apply it."""
    heads = {id(node.head): node.head for node in followers}
    if len(heads) != 1 or not hasattr(layer, "use_bias"):
        return None
    (follower,) = heads.values()
    name = f"{layer.name}_{function_name(getattr(follower, 'activation', None))}"
    is_own = re.fullmatch(rf"{re.escape(name)}(_\d+)?", follower.name) is not None
    return follower.activation if type(follower) is keras.layers.Activation and is_own else None


def _in_operations(node: Node, graph: Graph) -> Graph:
    """Returns the operations with which the layer computes in float."""

    def call(layer, inputs):
        return layer.float_forward(inputs, training=False)

    if not getattr(node.head, "moves_batch", False):
        return trace_layer(node, graph, call)
    # While a layer is traced, a number stands for the batch, which a reshape could not divide.
    x = keras.Input(batch_shape=graph.shape(node.inputs[0]), dtype=graph.dtype(node.inputs[0]))
    return read_function(keras.Function(x, call(node.head, x)), node.name)
