"""Traces a layer: runs its `call` on symbolic tensors, and reads the operations as a graph."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.batch import batch_size, forget_batch, of_batch, with_batch, without_batch
from keras_qat.graph.constants import without_constants
from keras_qat.graph.graph import Edge, Graph, Node, Parameter, Shape
from keras_qat.graph.reading import read_function
from keras_qat.graph.symbols import Lookup, traced
from keras_qat.graph.untraceable import untraceable


def own_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs the `call` of a layer."""
    return layer.call(*args, **kwargs)


def trace_layer(node: Node, graph: Graph, call: Callable[..., Any] = own_call) -> Graph:
    """Runs the `call` of a layer on symbolic tensors and reads the operations that it made.

    The layer's own variables become `Parameter`s of the operations that take them. Operations on
    variables alone are computed here. The layer itself is not changed: `call` runs on a copy
    that has symbolic tensors instead of variables.

    Args:
        node: A call of one Keras layer.
        graph: The graph of the node, which has the shapes of its inputs.
        call: The function to run. Its first argument is the copy of the layer.

    Returns:
        A graph with one input for each input of the node, in their order.

    Raises:
        UnsupportedLayerError: If `call` does something that cannot be traced, or has weights that
            would be lost.
    """
    edges = list(dict.fromkeys(node.inputs))
    shapes = [graph.shape(edge) for edge in edges]
    batch = batch_size_for(node.head, shapes)
    inputs = {
        edge: keras.Input(batch_shape=with_batch(shape, batch), dtype=graph.dtype(edge))
        for edge, shape in zip(edges, shapes, strict=True)
    }

    def argument(leaf: Any) -> Any:
        if isinstance(leaf, Edge):
            return inputs[leaf]
        is_constant = isinstance(leaf, Parameter) and not leaf.trainable
        return leaf.value if is_constant else of_batch(leaf, batch)

    def run(layer: Any) -> Any:
        args, kwargs = tree.map_structure(argument, node.arguments)
        return call(layer, *args, **kwargs)

    try:
        return trace_call(node.head, run, list(inputs.values()), node.name, batch)
    except UnsupportedLayerError:
        _check_arguments(node)
        raise


def _check_arguments(node: Node) -> None:
    """Raises if a layer is called with a mask, or with a weight of the layer around it."""
    if isinstance(node.arguments[1].get("mask"), Edge):
        raise UnsupportedLayerError(
            "A mask has no counterpart in LiteRT: where Keras leaves the padding out, a file would "
            "compute with it.",
            layer=node.name,
            received=f"a {type(node.head).__name__} that is called with a mask",
            expected="a call without one",
            fix="Make no mask: `mask_zero=False` in an `Embedding`, and no `Masking`; then cut the "
            "sequences to one length, or give the padding a separate value.",
        )
    leaves = tree.flatten(node.arguments)
    if any(isinstance(leaf, Parameter) and leaf.trainable for leaf in leaves):
        raise UnsupportedLayerError(
            "An inner layer is called with a weight as an argument.",
            layer=node.name,
            received=f"a {type(node.head).__name__}",
            expected="a call on tensors that depend on the inputs of the model",
            fix="Make the weight an attribute of the inner layer when you create the layer.",
        )


def trace_call(
    layer: Any, function: Callable[[Any], Any], inputs: list[Any], name: str, batch: int
) -> Graph:
    """Reads the operations of a function of a layer and symbolic tensors.

    Args:
        layer: The layer whose `call` the function runs. It is not changed.
        function: Called with a copy of the layer whose variables are symbolic.
        inputs: The symbolic tensors that the function computes with.
        name: Name of the layer in errors.
        batch: The size of the batch in the shapes of the inputs, see `batch_size_for`.

    Returns:
        A graph with these inputs, in a list, for batches of any size.

    Raises:
        UnsupportedLayerError: See `trace_layer`.
    """
    twin, variables = _symbolic_copy(layer)
    try:
        symbols = [*inputs, *(symbol for symbol, _ in variables)]
        with traced(symbols, batch):
            outputs = function(twin)
        graph = read_function(keras.Function(symbols, outputs), layer.name)
        weights = graph.inputs[len(inputs) :]
        own = dict(zip(weights, (variable for _, variable in variables), strict=True))
        result = forget_batch(_in_any_mode(without_constants(graph, own, batch)), batch)
    except UnsupportedLayerError:
        raise
    except Exception as error:  # user code may raise anything
        shapes = [without_batch(tensor.shape, batch) for tensor in inputs]
        raise untraceable(layer, name, error, shapes) from error
    _check_weights(layer, name, result, _own_variables(layer))
    _check_copies(layer, name, result)
    return result


def batch_size_for(layer: Any, shapes: Iterable[Shape]) -> int:
    """Returns a number that can stand for the size of the batch while a layer is traced.

    Args:
        layer: The layer.
        shapes: Shapes of its inputs.
    """
    return batch_size(size for shape in (*shapes, *_shapes(layer)) for size in shape)


def _shapes(layer: Any) -> list[Shape]:
    return [tuple(variable.shape) for variable in layer.variables]


def _in_any_mode(graph: Graph) -> Graph:
    """Drops `training` from the calls, since a traced `call` passes on its own argument.

    The value does not show whether the user wrote `training=False` or it is the default of `call`.
    """
    nodes = {}
    for name, node in graph.nodes.items():
        args, kwargs = node.arguments
        kept = {key: value for key, value in kwargs.items() if key != "training"}
        nodes[name] = dataclasses.replace(node, arguments=(args, kept))
    return dataclasses.replace(graph, nodes=nodes)


def _symbolic_copy(layer: object) -> tuple[Any, list[tuple[Any, keras.Variable]]]:
    """Copies a layer, with a symbolic tensor instead of each variable that is an attribute.

    The copy shares everything else with the layer. Keras's own copy would save and load the layer.

    Returns:
        The copy, and pairs of each symbolic tensor and its variable.
    """
    attributes: dict[str, Any] = vars(layer)
    own = _own_variables(layer)
    symbols = {id(v): (keras.Input(batch_shape=v.shape, dtype=v.dtype), v) for v in own.values()}
    twin = object.__new__(type(layer))
    methods = {k: v for k, v in attributes.items() if getattr(v, "__self__", None) is layer}
    copied: dict[str, Any] = vars(twin)
    copied |= attributes
    copied |= {name: symbols[id(value)][0] for name, value in own.items()}
    copied |= {k: types.MethodType(v.__func__, twin) for k, v in methods.items()}
    for name, value in attributes.items():
        if type(value) is keras.layers.Embedding and value.built:
            table = value.embeddings
            symbol = keras.Input(batch_shape=table.shape, dtype=table.dtype)
            symbols[id(table)] = symbol, table
            copied[name] = Lookup(value, symbol)
    return twin, list(symbols.values())


def _own_variables(layer: object) -> dict[str, keras.Variable]:
    """Returns the variables that are attributes of a layer, by name."""
    attributes: dict[str, Any] = vars(layer)
    return {k: v for k, v in attributes.items() if isinstance(v, keras.Variable)}


def _check_weights(layer: Any, name: str, graph: Graph, own: Mapping[str, keras.Variable]) -> None:
    """Raises if no operation has a trainable weight: it would stop training."""
    found = {id(variable) for variable in own.values()}
    for inner in graph.nodes.values():
        found |= {id(v) for v in getattr(inner.head, "variables", ())}
        leaves = [leaf for leaf in tree.flatten(inner.arguments) if isinstance(leaf, Parameter)]
        found |= {id(v) for leaf in leaves for v in leaf.variables}
    lost = [v.path for v in layer.trainable_variables if id(v) not in found]
    if lost:
        raise UnsupportedLayerError(
            "A weight of this layer does not occur in the traced operations, and would not train.",
            layer=name,
            received=f"{type(layer).__name__} with {lost}",
            fix="Keep each weight in a separate attribute. Call inner layers on tensors that "
            "depend on the inputs of `call`.",
        )


def _check_copies(layer: Any, name: str, graph: Graph) -> None:
    """Raises if a constant has the values of a weight, as in `ops.transpose(self.layer.kernel)`."""
    leaves = [leaf for inner in graph.nodes.values() for leaf in tree.flatten(inner.arguments)]
    constants = [x.value for x in leaves if isinstance(x, Parameter) and not x.variables]
    for variable in layer.trainable_variables if constants else ():
        numbers = np.sort(ops.convert_to_numpy(variable), axis=None)
        same = [x for x in constants if x.size == numbers.size and numbers[0] != numbers[-1]]
        if any(np.array_equal(np.sort(x, axis=None), numbers) for x in same):
            raise UnsupportedLayerError(
                "`call` computes with a weight of an inner layer, which would become a constant.",
                layer=name,
                received=f"{type(layer).__name__} with '{variable.path}'",
                fix="Make the weight an attribute of the layer itself, or set its `trainable` to "
                "False.",
            )
