"""Reads a Keras model into a `Graph`."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_qat.errors import InvalidModelError
from keras_qat.graph.graph import Edge, Graph, Node, flatten_edges, unique_name
from keras_qat.graph.keras_internals import (
    calls_of,
    functional_of,
    inputs_of,
    is_functional,
    layers_of,
    outputs_of,
)


def read_model(model: keras.Model) -> Graph:
    """Reads a functional or sequential model.

    Nested models stay separate nodes; the pass `inline_models` opens them. The operations
    in the graph are the model's own objects, not copies.

    Args:
        model: A built functional or sequential model.

    Returns:
        The checked `Graph`.

    Raises:
        InvalidModelError: If the model is not built, or is neither functional nor sequential.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> read_model(model).shape(Edge("head"))
    (None, 2)
    """
    return read_function(_functional(model), model.name)


def read_function(functional: Any, name: str) -> Graph:
    """Reads a `keras.Function` or functional model, see `read_model`."""
    edges: dict[int, Edge] = {}
    nodes: dict[str, Node] = {}
    calls = list(calls_of(functional))
    # A further call of a shared layer must not take the name of another layer.
    reserved = {call.operation.name for call in calls}
    for call in calls:
        node = _read_call(call, edges, nodes, reserved)
        nodes[node.name] = node
        edges.update({id(t): Edge(node.name, i) for i, t in enumerate(call.output_tensors)})

    def to_edge(tensor: keras.KerasTensor) -> Edge:
        return edges[id(tensor)]

    outputs = tree.map_structure(to_edge, outputs_of(functional))
    made = flatten_edges(outputs)
    return Graph(
        name=name,
        nodes=nodes,
        inputs=tuple(to_edge(tensor).node for tensor in functional.inputs),
        outputs=outputs,
        input_structure=tree.map_structure(to_edge, inputs_of(functional)),
        output_names=tuple(getattr(functional, "output_names", None) or map(str, made)),
    ).check()


def tensors_by_edge(model: keras.Model) -> dict[Edge, Any]:
    """Returns the symbolic tensor that stands for each edge of `read_model(model)`.

    Args:
        model: A model that `read_model` can read.

    Returns:
        The `KerasTensor` of every output of every node.
    """
    names = iter(read_model(model).nodes)
    return {
        Edge(name, i): tensor
        for name, call in zip(names, calls_of(_functional(model)), strict=True)
        for i, tensor in enumerate(call.output_tensors)
    }


def is_model(operation: Any) -> bool:
    """Returns whether an operation is a nested model that can be read."""
    return isinstance(operation, keras.Sequential) or is_functional(operation)


def inner_layers(operation: Any) -> int:
    """Returns the number of layers that an operation consists of, itself included."""
    is_layer = isinstance(operation, keras.layers.Layer)
    return len(layers_of(operation)) if is_layer else 1


def _functional(model: keras.Model) -> Any:
    """Returns the functional form of a model that is built."""
    if not isinstance(model, keras.Model):
        raise InvalidModelError(
            "Not a Keras model.",
            received=f"{type(model).__module__}.{type(model).__name__}",
            expected="a keras.Model",
            fix="Pass a functional or sequential Keras 3 model.",
        )
    if isinstance(model, keras.Sequential):
        functional = functional_of(model)
        if not model.built or functional is None:
            raise InvalidModelError(
                "The model is not built: its weights do not exist yet.",
                layer=model.name,
                fix="Add a `keras.Input` as the first layer, or call `model.build(input_shape)`.",
            )
        return functional
    if not is_functional(model):
        raise InvalidModelError(
            "The model is subclassed, so it has no graph of layers to read.",
            layer=model.name,
            received=f"a {type(model).__name__}",
            expected="a functional or sequential model",
            fix="Build it with `keras.Model(inputs, outputs)`, or call it in one: "
            "`keras.Model(x, model(x))` with `x = keras.Input(shape)`.",
        )
    return model


def _read_call(
    call: Any, edges: dict[int, Edge], nodes: dict[str, Node], reserved: set[str]
) -> Node:
    """Makes the node of one call of an operation."""

    def to_edge(leaf: object) -> object:
        return edges[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

    operation = call.operation
    _check_built(operation)
    name = operation.name
    name = unique_name(name, reserved | set(nodes)) if name in nodes else name
    arguments = (call.arguments.args, call.arguments.kwargs)
    return Node(
        name=name,
        operations=(operation,),
        inputs=tuple(edges[id(tensor)] for tensor in call.input_tensors),
        arguments=tree.map_structure(to_edge, arguments),
        shapes=tuple(tuple(tensor.shape) for tensor in call.output_tensors),
        dtypes=tuple(str(tensor.dtype) for tensor in call.output_tensors),
        origins=(name,),
    )


def _check_built(operation: Any) -> None:
    if isinstance(operation, keras.layers.Layer) and not operation.built:
        raise InvalidModelError(
            "A layer is not built: its weights do not exist yet.",
            layer=operation.name,
            fix="Call the model once, or `model.build(input_shape)`, before passing it.",
        )
