"""Recurrent layers, unrolled: calls of the same layers for each step of the sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.symbols import BatchSize
from keras_qat.layers.core.registry import register
from keras_qat.layers.decompositions.recurrent_cells import CELLS, Projection, Step, check_dropout


class Hold(keras.layers.Layer):
    """Takes new values for samples whose step is no padding, and keeps the values of the others."""

    def call(self, keep: Any, new: Any, old: Any) -> Any:
        """Selects values of shape `(batch, ..., units)`, by a mask of shape `(batch, ..., 1)`."""
        return ops.where(keep, new, old)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The outputs and the last states of a recurrent layer.

    Attributes:
        outputs: The output of each step, in the order of the computation.
        states: The states after the last step.
    """

    outputs: list[Any]
    states: list[Any]


@register(
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
    keras.layers.GRU,
    keras.layers.LSTM,
    keras.layers.RNN,
    keras.layers.SimpleRNN,
)
def _recurrent(
    layer: Any, sequences: Any, initial_state: Any = None, mask: Any = None, **kwargs: Any
) -> Any:
    del kwargs  # `training` only matters for dropout
    steps = _unrolled(layer, sequences, initial_state, mask, layer.name)
    output = _sequence(steps.outputs) if layer.return_sequences else steps.outputs[-1]
    return (output, *steps.states) if layer.return_state else output


@register(keras.layers.Bidirectional)
def _bidirectional(
    layer: Any, sequences: Any, initial_state: Any = None, mask: Any = None, **kwargs: Any
) -> Any:
    del kwargs
    both, half = (layer.forward_layer, layer.backward_layer), len(initial_state or ()) // 2
    given = (initial_state[:half], initial_state[half:]) if half else (None, None)
    runs = [
        _unrolled(part, sequences, states, mask, layer.name, f"{kind}_")
        for part, states, kind in zip(both, given, ("forward", "backward"), strict=True)
    ]
    if layer.return_sequences:
        orders = runs[0].outputs, runs[1].outputs[::-1]
        results = [_sequence(outputs) for outputs in orders]
    else:
        results = [run.outputs[-1] for run in runs]
    output = _MERGES[layer.merge_mode](*results)
    if not layer.return_state:
        return output
    outputs = output if isinstance(output, tuple) else (output,)
    return (*outputs, *runs[0].states, *runs[1].states)


def _sequence(outputs: list[Any]) -> Any:
    """Joins the outputs of all steps. A single one needs no operator but a reshape."""
    return ops.stack(outputs, axis=1) if len(outputs) > 1 else ops.expand_dims(outputs[0], 1)


_MERGES: dict[str | None, Callable[[Any, Any], Any]] = {
    "ave": lambda a, b: (a + b) / 2,
    "concat": lambda a, b: ops.concatenate([a, b], axis=-1),
    "mul": lambda a, b: a * b,
    "sum": lambda a, b: a + b,
    None: lambda a, b: (a, b),
}


def _unrolled(
    layer: Any, sequences: Any, initial_state: Any, mask: Any, name: str, prefix: str = ""
) -> _Steps:
    """Calls the cell of a recurrent layer for each step. Errors have the name."""
    batch, length = tree.flatten(sequences)[0].shape[:2]
    _check(layer, batch, name)
    if isinstance(mask, list | tuple):
        mask = mask[0]
    states = _initial_states(layer, batch, initial_state)
    inputs, step = _parts(layer, sequences, prefix)
    # Each state has a range of its own, so it has a layer of its own.
    holds = [Hold(name=f"{prefix}hold_{i}") for i in range(len(tree.flatten(states)) + 1)]
    outputs: list[Any] = []
    for t in reversed(range(length)) if layer.go_backwards else range(length):
        output, new = step(tree.map_structure(lambda x, t=t: x[:, t], inputs), states)
        if mask is not None:
            keep = ops.reshape(mask[:, t], (-1, *(1,) * (len(output.shape) - 1)))
            is_state = initial_state is None and output is tree.flatten(new)[0]
            pairs = zip(holds, tree.flatten(new), tree.flatten(states), strict=False)
            new = tree.pack_sequence_as(new, [hold(keep, a, b) for hold, a, b in pairs])
            if is_state and not layer.zero_output_for_mask:
                output = tree.flatten(new)[0]
            else:
                is_zero = layer.zero_output_for_mask or not outputs
                zeros = ops.zeros((batch, *output.shape[1:]))
                output = holds[-1](keep, output, zeros if is_zero else outputs[-1])
        states = new
        outputs.append(output)
    return _Steps(outputs, states)


def _initial_states(layer: Any, batch: Any, given: Any) -> list[Any]:
    """Returns the states before the first step, in the structure of the cell's states."""
    if given is not None:
        return list(given) if tree.is_nested(given) else [given]
    # Rewritten layers compute in float32, whatever the policy of the layer.
    states = layer.get_initial_state(batch)
    return tree.map_structure(lambda state: ops.cast(state, "float32"), states)


def _parts(layer: Any, sequences: Any, prefix: str) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Returns the inputs of all steps, and the function of one of them and the states."""
    cell = layer.cell
    if type(cell) not in CELLS:
        return sequences, lambda x, states: _as_lists(*cell(x, states))
    if cell.dropout:  # one choice of channels for all steps
        sequences = keras.layers.SpatialDropout1D(cell.dropout, name=f"{prefix}dropout")(sequences)
    step = Step(cell, name=f"{prefix}step")

    def stepped(x: Any, states: Any) -> Any:
        """Returns the output of a step, and the states after it."""
        new = list(step(x, *states))
        return new[0], new

    return Projection(cell, name=f"{prefix}projection")(sequences), stepped


def _as_lists(output: Any, states: Any) -> tuple[Any, list[Any]]:
    return output, list(states) if tree.is_nested(states) else [states]


def _check(layer: Any, batch: Any, name: str) -> None:
    """Raises if a recurrent layer cannot be unrolled."""
    cell = CELLS.get(type(layer.cell))
    is_kept = cell is not None and cell.keeps_dropout
    check_dropout(layer.cell, name, allowed=["dropout"] if is_kept else [])
    if layer.stateful:
        raise UnsupportedLayerError(
            "A file keeps no state between two calls.",
            layer=name,
            received="stateful=True",
            expected="a recurrent layer that starts from its initial state",
            fix="Build the model again with `stateful=False` and `keras.Input((steps, channels))`, "
            "and give it the weights with `set_weights`.",
        )
    if not isinstance(batch, BatchSize):
        raise UnsupportedLayerError(
            "The initial state of a recurrent layer is made for batches of any size.",
            layer=name,
            received=f"a batch of {batch}",
            expected="a model whose `keras.Input` leaves the size of the batch open",
            fix="Build the model again with `keras.Input((steps, channels))`, and give it the "
            "weights with `set_weights`. `export_litert(batch_size=...)` fixes the size of a file.",
        )
