"""The cells of recurrent layers, in two parts: what depends on the state, and what does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.keras_internals import conv_lstm_cell
from keras_qat.layers.core.registry import register


@dataclasses.dataclass(frozen=True)
class Cell:
    """How a cell computes.

    Attributes:
        project: Computes from a cell and its input what does not depend on the state. It takes
            the inputs of all steps at once, of shape `(batch, steps, channels)`, or of one step.
        step: Computes the new states, the first of which is the output, from a cell, the
            projection of one step and the states.
        keeps_dropout: Whether its `dropout` can be kept: it drops the same channels of all steps.
    """

    project: Callable[[Any, Any], Any]
    step: Callable[..., tuple[Any, ...]]
    keeps_dropout: bool = True


# The arguments of a cell with convolutions.
_WINDOW_ARGUMENTS = ("strides", "padding", "dilation_rate", "data_format")


class Projection(keras.layers.Layer):
    """The part of a cell that does not depend on its state.

    Args:
        cell: The built cell.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, cell: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel, self.bias = cell.kernel, cell.bias
        self.reset_after, self._cell = getattr(cell, "reset_after", False), CELLS[type(cell)]
        for name in _WINDOW_ARGUMENTS:
            setattr(self, name, getattr(cell, name, None))

    def call(self, x: Any) -> Any:
        """Multiplies by the kernel, or convolves with it, and adds the bias."""
        return self._cell.project(self, x)


class Step(keras.layers.Layer):
    """The part of a cell that depends on its state.

    Args:
        cell: The built cell.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, cell: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.recurrent_kernel, self.units = cell.recurrent_kernel, getattr(cell, "units", None)
        self.data_format = getattr(cell, "data_format", None)
        self.reset_after, self._cell = getattr(cell, "reset_after", False), CELLS[type(cell)]
        self.bias = cell.bias if self.reset_after else None
        self.activation = cell.activation
        self.recurrent_activation = getattr(cell, "recurrent_activation", None)

    def call(self, x: Any, *states: Any) -> Any:
        """Computes the new states from the projection of a step and the states before it."""
        return self._cell.step(self, x, *states)


def _project(cell: Any, x: Any) -> Any:
    y = ops.matmul(x, cell.kernel)
    return y if cell.bias is None else y + cell.bias


def _project_gru(cell: Any, x: Any) -> Any:
    y = ops.matmul(x, cell.kernel)
    if cell.bias is None:
        return y
    return y + (cell.bias[0] if cell.reset_after else cell.bias)


def _step(cell: Any, x: Any, h: Any) -> tuple[Any, ...]:
    return (cell.activation(x + ops.matmul(h, cell.recurrent_kernel)),)


def _lstm_step(cell: Any, x: Any, h: Any, c: Any) -> tuple[Any, ...]:
    return _lstm_states(cell, x + ops.matmul(h, cell.recurrent_kernel), c, -1)


def _lstm_states(cell: Any, sums: Any, c: Any, axis: int) -> tuple[Any, ...]:
    """Computes the new states from the sums of all gates, and the memory."""
    gates = ops.split(sums, 4, axis=axis)
    i, f, o = (cell.recurrent_activation(gates[k]) for k in (0, 1, 3))
    c = f * c + i * cell.activation(gates[2])
    return o * cell.activation(c), c


def _gru_step(cell: Any, x: Any, h: Any) -> tuple[Any, ...]:
    both = 2 * cell.units
    if cell.reset_after:
        y = ops.matmul(h, cell.recurrent_kernel)
        y = y if cell.bias is None else y + cell.bias[1]
        gates, candidate = y[:, :both], y[:, both:]
    else:
        gates, candidate = ops.matmul(h, cell.recurrent_kernel[:, :both]), None
    z, r = ops.split(cell.recurrent_activation(x[:, :both] + gates), 2, axis=-1)
    if candidate is None:
        candidate = ops.matmul(r * h, cell.recurrent_kernel[:, both:])
    else:
        candidate = r * candidate
    new = cell.activation(x[:, both:] + candidate)
    return (new + z * (h - new),)


def _project_images(cell: Any, x: Any) -> Any:
    """Convolves all steps at once, as samples of the batch."""
    steps = x.shape[1 : -cell.kernel.ndim + 1]
    y = ops.reshape(x, (-1, *x.shape[2:])) if steps else x
    y = ops.conv(y, cell.kernel, **{name: getattr(cell, name) for name in _WINDOW_ARGUMENTS})
    if cell.bias is not None:
        y = y + _for_channels(cell, cell.bias)
    return ops.reshape(y, (-1, *steps, *y.shape[1:])) if steps else y


def _images_step(cell: Any, x: Any, h: Any, c: Any) -> tuple[Any, ...]:
    y = ops.conv(h, cell.recurrent_kernel, padding="same", data_format=cell.data_format)
    return _lstm_states(cell, x + y, c, 1 if cell.data_format == "channels_first" else -1)


def _for_channels(cell: Any, vector: Any) -> Any:
    """Gives a vector the shape that broadcasts to the channels of images."""
    if cell.data_format != "channels_first":
        return vector
    return ops.reshape(vector, (-1, *(1,) * (len(cell.kernel.shape) - 2)))


CELLS = {
    conv_lstm_cell(): Cell(_project_images, _images_step, keeps_dropout=False),
    keras.layers.GRUCell: Cell(_project_gru, _gru_step),
    keras.layers.LSTMCell: Cell(_project, _lstm_step),
    keras.layers.SimpleRNNCell: Cell(_project, _step),
}


def check_dropout(cell: Any, name: str, allowed: Sequence[str] = ()) -> None:
    """Raises if a cell has a dropout that cannot be kept for training.

    Args:
        cell: The cell.
        name: Name of the layer in the error.
        allowed: The dropouts that the caller keeps, of `"dropout"` and `"recurrent_dropout"`.

    Raises:
        UnsupportedLayerError: If it has another dropout.
    """
    found = {kind: getattr(cell, kind, 0) for kind in ("dropout", "recurrent_dropout")}
    for kind, rate in found.items():
        if rate and kind not in allowed:
            raise UnsupportedLayerError(
                "This dropout inside a recurrent cell cannot be kept for training.",
                layer=name,
                received=f"{kind}={rate}",
                expected="a cell without it; the `dropout` of a `keras.layers.LSTM`, `GRU` or "
                "`SimpleRNN` on a tensor is kept",
                fix=f"Set it to 0 before you quantize: `layer.cell.{kind} = 0`.",
            )


def _called(layer: Any, inputs: Any, states: Any, **kwargs: Any) -> Any:
    del kwargs  # `training` only matters for dropout
    check_dropout(layer, layer.name)
    cell = next(CELLS[base] for base in type(layer).__mro__ if base in CELLS)
    new = cell.step(layer, cell.project(layer, inputs), *tree.flatten(states))
    return new[0], tree.pack_sequence_as(states, list(new))


register(*CELLS)(_called)


@register(keras.layers.StackedRNNCells)
def _stacked(layer: Any, inputs: Any, states: Any, **kwargs: Any) -> Any:
    del kwargs
    return layer.call(inputs, states, training=False)
