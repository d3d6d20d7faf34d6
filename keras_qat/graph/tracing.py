"""Traces a layer: runs its `call` on symbolic tensors, and reads the operations as a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.batch import batch_size, forget_batch, of_batch, with_batch, without_batch
from keras_qat.graph.constants import without_constants
from keras_qat.graph.graph import Edge, Graph, Node, Parameter, Shape
from keras_qat.graph.keras_internals import Calls
from keras_qat.graph.reading import read_function
from keras_qat.graph.symbols import traced
from keras_qat.graph.twins import Twins
from keras_qat.graph.untraceable import untraceable


def own_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs the `call` of a layer."""
    return layer.call(*args, **kwargs)


def trace_layer(
    node: Node,
    graph: Graph,
    call: Callable[..., Any] = own_call,
    is_inlined: Callable[[Any], bool] | None = None,
    rows: Callable[[Edge], int] = lambda edge: 1,
) -> Graph:
    """Runs the `call` of a layer on symbolic tensors and reads the operations that it made.

    The layer's own variables become `Parameter`s of the operations that take them. Operations on
    variables alone are computed here. The layer itself is not changed: `call` runs on a copy
    that has symbolic tensors instead of variables.

    Args:
        node: A call of one Keras layer.
        graph: The graph of the node, which has the shapes of its inputs.
        call: The function to run. Its first argument is the copy of the layer.
        is_inlined: Tells of which inner layers the operations become part of the graph. The others
            are nodes of it. Keras makes nodes of calls only if they return tensors, and if the
            layer was built for their shapes.
        rows: Returns the size of the first axis of a tensor, as a multiple of the batch.

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
        edge: keras.Input(
            batch_shape=with_batch(shape, rows(edge) * batch), dtype=graph.dtype(edge)
        )
        for edge, shape in zip(edges, shapes, strict=True)
    }

    def argument(leaf: Any) -> Any:
        """Returns the symbolic tensor, the constant or the size that stands for an argument."""
        if isinstance(leaf, Edge):
            return inputs[leaf]
        is_constant = isinstance(leaf, Parameter) and not leaf.trainable
        return leaf.value if is_constant else of_batch(leaf, batch)

    def run(layer: Any) -> Any:
        args, kwargs = tree.map_structure(argument, node.arguments)
        return call(layer, *args, **kwargs)

    try:
        symbols = list(inputs.values())
        taken = {*graph.consumers(), *graph.output_edges}
        return trace_call(
            node.head,
            run,
            symbols,
            node.name,
            batch,
            is_inlined,
            lambda output: Edge(node.name, output) in taken,
        )
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
    layer: Any,
    function: Callable[[Any], Any],
    inputs: list[Any],
    name: str,
    batch: int,
    is_inlined: Callable[[Any], bool] | None = None,
    is_used: Callable[[int], bool] = lambda output: True,
) -> Graph:
    """Reads the operations of a function of a layer and symbolic tensors.

    Args:
        layer: The layer whose `call` the function runs. It is not changed.
        function: Called with a copy of the layer whose variables are symbolic.
        inputs: The symbolic tensors that the function computes with.
        name: Name of the layer in errors.
        batch: The size of the batch in the shapes of the inputs, see `batch_size_for`.
        is_inlined: See `trace_layer`.
        is_used: Tells by its number whether something takes an output.

    Returns:
        A graph with these inputs, in a list, for batches of any size.

    Raises:
        UnsupportedLayerError: See `trace_layer`.
    """
    twins = Twins(is_inlined)
    try:
        twin = twins.of(layer)
        variables = [variable for _, variable in twins.symbols]
        symbols = [*inputs, *(symbol for symbol, _ in twins.symbols)]
        with traced(symbols, batch):
            outputs = function(twin)
        outputs, constants = _with_constants(outputs, inputs, is_used)
        symbols += [symbol for symbol, _ in constants]
        calls = keras.Function if is_inlined is None else Calls
        graph = read_function(calls(symbols, outputs), layer.name)
        weights = graph.inputs[len(inputs) :]
        values = [*variables, *(value for _, value in constants)]
        own = dict(zip(weights, values, strict=True))
        result = forget_batch(_in_any_mode(without_constants(graph, own, batch)), batch)
    except UnsupportedLayerError:
        raise
    except Exception as error:  # user code may raise anything
        shapes = [without_batch(tensor.shape, batch) for tensor in inputs]
        raise untraceable(layer, name, error, shapes) from error
    _check_weights(layer, name, result, variables)
    _check_copies(layer, name, result)
    return result


def _with_constants(
    outputs: Any, inputs: list[Any], is_used: Callable[[int], bool]
) -> tuple[Any, list[tuple[Any, Any]]]:
    """Returns outputs with symbolic tensors in place of values, and pairs of both.

    An input stands for a value that nothing takes.
    """
    constants: list[tuple[Any, Any]] = []
    leaves = tree.flatten(outputs)
    for i, leaf in enumerate(leaves):
        if not is_used(i) and not isinstance(leaf, keras.KerasTensor):
            leaves[i] = inputs[0]
        if isinstance(leaves[i], keras.KerasTensor) or leaf is None:
            continue
        value = ops.convert_to_numpy(leaf)
        leaves[i] = keras.Input(batch_shape=value.shape, dtype=str(value.dtype))
        constants.append((leaves[i], value))
    return tree.pack_sequence_as(outputs, leaves), constants


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


def _check_weights(layer: Any, name: str, graph: Graph, own: Iterable[keras.Variable]) -> None:
    """Raises if no operation has a trainable weight: it would stop training."""
    found = {id(variable) for variable in own}
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
