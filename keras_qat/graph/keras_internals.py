"""Keras's private attributes: the only file that reads or writes them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import keras


def conv_lstm_cell() -> type:
    """Returns the class of the cells of convolutional LSTMs."""
    module: Any = importlib.import_module("keras.src.layers.rnn.conv_lstm")
    return module.ConvLSTMCell


def is_functional(model: Any) -> bool:
    """Returns whether Keras keeps the calls of a model's layers, as in functional models."""
    return isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")


def functional_of(model: keras.Sequential) -> Any:
    """Returns the functional model of a `keras.Sequential`, or None before it is built."""
    return model._functional


def calls_of(functional: Any) -> Iterator[Any]:
    """Yields Keras's own nodes of a functional model or function, producers first."""
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from functional._nodes_by_depth[depth]


def inputs_of(functional: Any) -> Any:
    """Returns the input tensors of a functional model or function in their structure."""
    return functional._inputs_struct


def outputs_of(functional: Any) -> Any:
    """Returns the output tensors of a functional model or function in their structure."""
    return functional._outputs_struct


def layers_of(layer: Any, *, include_self: bool = True) -> list[Any]:
    """Returns the layers in a layer, including layers inside these."""
    return list(layer._flatten_layers(include_self=include_self))


def producer_of(tensor: Any) -> tuple[Any, Any] | None:
    """Returns the operation that made a symbolic tensor, and Keras's node of the call.

    Args:
        tensor: Any object.

    Returns:
        The operation and its node, or None if the object is not a computed `KerasTensor`.
    """
    history = getattr(tensor, "_keras_history", None)
    if history is None or not isinstance(tensor, keras.KerasTensor):
        return None
    operation = history.operation
    return operation, operation._inbound_nodes[history.node_index]


def mask_of(tensor: Any) -> Any:
    """Returns the mask that Keras attached to a tensor, or None if it has no mask."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, as Keras does."""
    tensor._keras_mask = mask


class Calls:
    """The calls between symbolic tensors, to be read like a `keras.Function`.

    A `keras.Function` refuses operations of one name, which different layers may have inside.

    Args:
        inputs: The tensors to start from.
        outputs: The tensors to compute, in any structure.

    Raises:
        ValueError: If a tensor does not depend on the inputs.
    """

    def __init__(self, inputs: list[Any], outputs: Any):
        self.inputs = inputs
        self._inputs_struct, self._outputs_struct = inputs, outputs
        calls = {id(call): call for call in map(_call_of, inputs)}
        pending = [_call_of(tensor) for tensor in reversed(keras.tree.flatten(outputs))]
        while pending:
            call = pending[-1]
            missing = [each for each in map(_call_of, call.input_tensors) if id(each) not in calls]
            if id(call) in calls or not missing:
                calls.setdefault(id(pending.pop()), call)
                if call.is_input and not any(_call_of(tensor) is call for tensor in inputs):
                    raise ValueError(f"A tensor depends on '{call.operation.name}' alone.")
            else:
                pending += reversed(missing)
        self._nodes_by_depth = {0: list(calls.values())}


def _call_of(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


class Consumers(list[Any]):
    """The nodes that take the outputs of an operation. Each new node is passed to a function.

    Args:
        nodes: The nodes so far.
        added: Called with each new node.
    """

    def __init__(self, nodes: Iterable[Any], added: Callable[[Any], None]):
        super().__init__(nodes)
        self._added = added

    def append(self, node: Any) -> None:
        """Adds a node."""
        super().append(node)
        self._added(node)


def watch_consumers(operation: Any, added: Callable[[Any], None]) -> None:
    """Calls a function with each new node that takes an output of an operation."""
    # Not as an attribute: a layer would make its own list of the list.
    vars(operation)["_outbound_nodes"] = Consumers(operation._outbound_nodes, added)


def unwatch_consumers(operation: Any) -> None:
    """Ends `watch_consumers`."""
    vars(operation)["_outbound_nodes"] = list(operation._outbound_nodes)


def set_shape(tensor: Any, shape: Iterable[int | None]) -> None:
    """Sets the shape of a symbolic tensor."""
    tensor._shape = tuple(shape)


def shallow_copy(operation: object) -> Any:
    """Returns an operation or layer with the same attributes and variables, and no calls."""
    copied = object.__new__(type(operation))
    vars(copied).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    return copied


def exclude_from_weight_decay(optimizer: Any, variables: Iterable[Any]) -> None:
    """Excludes variables from the weight decay of an optimizer, besides those that it excludes.

    Keras's own method forgets the variables that were excluded before, and refuses optimizers that
    are built.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, or one around another.
        variables: The variables.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    known = getattr(inner, "_exclude_from_weight_decay", ())
    inner._exclude_from_weight_decay = {*known, *map(inner._var_key, variables)}
    inner._exclude_from_weight_decay_cache = {}


def only_shapes_are_computed() -> bool:
    """Returns whether Keras calls an operation only to find the shape and dtype of its output."""
    module: Any = importlib.import_module("keras.src.backend.common.symbolic_scope")
    return module.in_symbolic_scope()


@contextlib.contextmanager
def deferred_values() -> Generator[list[keras.Variable]]:
    """Defers the values of the variables that this thread makes. Yields these variables."""
    state: Any = importlib.import_module("keras.src.backend.common.global_state")
    key = "uninitialized_variables"
    variables: list[keras.Variable] = []
    before = state.get_global_attribute(key)
    state.set_global_attribute(key, variables)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield variables
    finally:  # Keras would initialize each variable that is still listed
        state.set_global_attribute(key, before)
