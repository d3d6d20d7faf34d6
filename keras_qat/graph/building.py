"""Building a Keras model from a `Graph`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from keras_qat.errors import InvalidModelError, KerasQatError, UnsupportedLayerError
from keras_qat.graph.graph import Edge, Graph, Node, Parameter, flatten_edges
from keras_qat.graph.statements import first_line


def build_model(
    graph: Graph,
    model_class: Callable[..., keras.Model] = keras.Model,
    *,
    name: str | None = None,
    input_tensors: Any = None,
    after_call: Callable[[Node], None] | None = None,
) -> keras.Model:
    """Builds a functional model by calling the operations of a graph.

    The operations are called as they are: a layer of the graph becomes a layer of the model.

    Args:
        graph: The graph.
        model_class: Class of the model, constructed as `model_class(inputs, outputs, name=...)`.
        name: Name of the model; the graph's by default.
        input_tensors: Keras tensors to build upon, in the structure of the graph's inputs; None
            for new ones.
        after_call: Called with each node once its layer is built. A function that sets the weights
            of the layer here saves the memory for all initial weights at once.

    Returns:
        The model, with the graph's structure of inputs and outputs.

    Raises:
        InvalidModelError: If the input tensors differ from the graph's inputs in shape or dtype.
        UnsupportedLayerError: If a layer cannot be called on its inputs.

    Example:
    >>> from keras_qat.graph import read_model
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> build_model(read_model(model)).output_shape
    (None, 2)
    """
    tensors = {} if input_tensors is None else _bind_inputs(graph, input_tensors)
    for node in graph.nodes.values():
        if Edge(node.name) in tensors:
            continue
        results = _built(node, tensors, after_call)
        tensors.update({Edge(node.name, i): t for i, t in enumerate(tree.flatten(results))})

    def to_tensor(edge: Edge) -> Any:
        return tensors[edge]

    return model_class(
        tree.map_structure(to_tensor, graph.input_structure),
        tree.map_structure(to_tensor, graph.outputs),
        name=name or graph.name,
    )


def _bind_inputs(graph: Graph, input_tensors: Any) -> dict[Edge, Any]:
    """Pairs the inputs of a graph with the tensors that the caller passed."""
    edges, given = flatten_edges(graph.input_structure), tree.flatten(input_tensors)
    wanted = [(graph.shape(edge), graph.dtype(edge)) for edge in edges]
    found = [(tuple(x.shape), str(x.dtype)) for x in given if isinstance(x, keras.KerasTensor)]
    is_alike = (
        len(found) == len(given)
        and _is_structured(input_tensors, graph)
        and all(
            dtype == other and _fits(shape, like)
            for (like, dtype), (shape, other) in zip(wanted, found, strict=True)
        )
    )
    if not is_alike:
        raise InvalidModelError(
            "The input tensors do not match the model's inputs.",
            layer=graph.name,
            received=f"{found or input_tensors!r}",
            expected=f"Keras tensors of shape and dtype {wanted}, in the structure of the inputs",
            fix="Make them with `keras.Input(shape, dtype=...)`.",
        )
    return dict(zip(edges, given, strict=True))


def _is_structured(input_tensors: Any, graph: Graph) -> bool:
    """Returns whether tensors have the structure of the inputs. A list may hold a single one."""
    if len(graph.inputs) == len(tree.flatten(input_tensors)) == 1:
        return True
    try:
        tree.assert_same_structure(graph.input_structure, input_tensors)
    except (TypeError, ValueError):
        return False
    return True


def _fits(shape: Any, like: Any) -> bool:
    """Returns whether a shape equals another one, in which unknown sizes may be known."""
    return len(shape) == len(like) and all(b in (None, a) for a, b in zip(shape, like, strict=True))


def _built(node: Node, tensors: dict[Edge, Any], after_call: Callable[[Node], None] | None) -> Any:
    """Calls a node. An error becomes an error that names the layer."""
    try:
        results = _call(node, tensors)
        if after_call is not None:
            after_call(node)
    except KerasQatError:
        raise
    except Exception as error:  # raised by Keras, or by a layer of the user
        raise UnsupportedLayerError(
            "This layer cannot be built for its inputs.",
            layer=node.name,
            received=f"{type(node.head).__name__} on shapes "
            f"{[tuple(tensors[edge].shape) for edge in node.inputs]}, which raised "
            f"{type(error).__name__}: {first_line(error)}",
            fix="Replace the layer by a layer of docs/supported.md. Unless it is a layer of "
            "your own, it is a defect of the package: please report it with the model.",
        ) from error
    return results


def _call(node: Node, tensors: dict[Edge, Any]) -> Any:
    """Calls the operations of a node, or makes an input."""
    if node.is_input:
        return keras.Input(batch_shape=node.shapes[0], dtype=node.dtypes[0], name=node.name)

    def argument(leaf: Any) -> Any:
        if isinstance(leaf, Edge):
            return tensors[leaf]
        return leaf.value if isinstance(leaf, Parameter) else leaf

    args, kwargs = tree.map_structure(argument, node.arguments)
    result = node.head(*args, **kwargs)
    for operation in node.operations[1:]:
        result = operation(result)
    return result
