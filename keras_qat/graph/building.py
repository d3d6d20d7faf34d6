"""Building a Keras model from a `Graph`."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_qat.graph.graph import Edge, Graph, Node


def build_model(
    graph: Graph, model_class: type[keras.Model] = keras.Model, *, name: str | None = None
) -> keras.Model:
    """Builds a functional model by calling the graph's operations.

    The operations are called as they are: a layer of the graph becomes a layer of the model.

    Args:
        graph: The graph.
        model_class: Class of the model, constructed as `model_class(inputs, outputs, name=...)`.
        name: Name of the model; the graph's by default.

    Returns:
        The model, with the graph's structure of inputs and outputs.

    Example:
    >>> from keras_qat.graph import read_model
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> build_model(read_model(model)).output_shape
    (None, 2)
    """
    tensors: dict[Edge, Any] = {}
    for node in graph.nodes.values():
        results = _call(node, tensors)
        tensors.update({Edge(node.name, i): t for i, t in enumerate(tree.flatten(results))})

    def to_tensor(edge):
        return tensors[edge]

    return model_class(
        tree.map_structure(to_tensor, graph.input_structure),
        tree.map_structure(to_tensor, graph.outputs),
        name=name or graph.name,
    )


def _call(node: Node, tensors: dict[Edge, Any]) -> Any:
    if node.is_input:
        return keras.Input(batch_shape=node.shapes[0], dtype=node.dtypes[0], name=node.name)
    args, kwargs = tree.map_structure(
        lambda leaf: tensors[leaf] if isinstance(leaf, Edge) else leaf, node.arguments
    )
    result = node.head(*args, **kwargs)
    for operation in node.operations[1:]:
        result = operation(result)
    return result
