"""UNIDIRECTIONAL_SEQUENCE_LSTM: all steps of an LSTM in one operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.lstm import COARSEST_CELL, FINEST_CELL, LstmWeights, lstm
from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import assign_copy, layer_of_chain
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.random_states import load_random_states, save_random_states
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.lstm_operators import add_lstm
from keras_qat.quantizers import (
    Free,
    Grid,
    fake_quantize,
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_grid,
)
from keras_qat.scheme import Scheme

_CELL_LIMITS = -(2**15), 2**15 - 1
_GATE_LIMITS = -8.0, 8.0 - 2.0**-12


class FusedLSTM(keras.layers.Layer):
    """An LSTM whose steps become one operator.

    Args:
        lstm: The `keras.layers.LSTM`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, lstm: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.lstm = lstm

    def call(self, x: Any) -> Any:
        """Calls the LSTM."""
        return self.lstm(x)


class _Weights(NamedTuple):
    """The weights of an LSTM in float: kernel, recurrent kernel, and bias of the gates."""

    kernel: Any
    recurrent_kernel: Any
    bias: Any


@register(layer_of(FusedLSTM))
@keras.saving.register_keras_serializable("keras_qat")
class QLSTM(QuantizedLayer, keras.layers.LSTM):
    """LSTM in one UNIDIRECTIONAL_SEQUENCE_LSTM, with 16-bit gates and a 16-bit cell state.

    Each of the eight matrices of weights has one scale. The scale of the cell state is a power of
    two from 2^-15 to 2^-9, so states beyond -64 and 64 are clipped. Targets that do not prefer the
    operator run an unrolled LSTM instead.

    Args:
        *args: Arguments of `keras.layers.LSTM`.
        **kwargs: Keyword arguments of `keras.layers.LSTM` and of `QuantizedLayer`.

    Example:
    >>> QLSTM(3, return_sequences=True)(np.ones((1, 4, 2), "float32")).shape
    TensorShape([1, 4, 3])
    """

    learns_range = False
    operators = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "MUL", "RESHAPE", "QUANTIZE")

    def compute_output_shape(self, input_shape):
        """Returns the shape of the states of all steps, or of the last one."""
        steps = input_shape[1:2] if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    def specifications(self):
        """Returns how the output and the cell state get their quantization parameters."""
        return {**super().specifications(), "cell": Free()}

    def float_forward(self, inputs, training=None):
        """Computes the LSTM in float."""
        return keras.layers.LSTM.call(self, inputs, training=bool(training))

    def training_forward(self, inputs):
        """Computes in float, with weights and states rounded to their grids."""
        weights = self._fake_quantized()
        seen = _steps(ops.stop_gradient(inputs), *map(ops.stop_gradient, weights))
        self.observer.track(self._result(seen[0]))
        self.observers()["cell"].track(seen[1])
        states, _ = _steps(inputs, *weights, self._round_hidden, self._round_cell)
        return self._result(states)

    def inner_tensor(self, name: str, inputs):
        """Computes the cell states of all steps in float."""
        del name
        return _steps(inputs, *self._weights())[1]

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Computes all steps as the target's kernel does."""
        ((values, grid),), scheme = inputs, self._scheme()
        states = lstm(
            values,
            self.integer_weights(grid.scale),
            grid.scale,
            self.cell_exponent(),
            *output,
            kernel=self.integer_rule("UNIDIRECTIONAL_SEQUENCE_LSTM"),
            largest_product=scheme.largest_product,
        )
        return ops.cast(self._result(states), "float32")

    def integer_weights(self, input_scale: Any) -> LstmWeights:
        """Computes the integer weights from the current variables.

        Args:
            input_scale: float32 scalar tensor.

        Returns:
            The `LstmWeights`.
        """
        kernel, recurrent, bias = self._weights()
        # A bias is below 2^30 in steps of the products.
        size = ops.max(ops.abs(ops.reshape(bias, (4, self.units))), axis=1)
        least = size * reciprocal(input_scale) * np.float32(2 / self._scheme().largest_sum)
        kernel, scale = self._rounded(kernel, least)
        recurrent, recurrent_scale = self._rounded(recurrent, ops.zeros_like(least))
        return LstmWeights(
            kernel, scale, recurrent, recurrent_scale, _integer_bias(bias, scale, input_scale)
        )

    def cell_exponent(self):
        """Returns the exponent of the cell state's scale, an int32 scalar tensor."""
        observer = self.observers()["cell"]
        low, high = (ops.convert_to_tensor(each) for each in (observer.minimum, observer.maximum))
        powers = ops.convert_to_tensor(
            2.0 ** np.arange(COARSEST_CELL - FINEST_CELL, dtype="float32")
        )
        wider = ops.cast(ops.maximum(-low, high) > powers, "int32")
        return FINEST_CELL + ops.sum(wider)

    def lower(self, builder, *inputs):
        """Adds an UNIDIRECTIONAL_SEQUENCE_LSTM, and operators that set its states to zero."""
        grid = self._neighbours().inputs[0].grid()
        weights = self.integer_weights(grid.scale)
        self._check_sums(weights, grid.scale)
        exponent = int(ops.convert_to_numpy(self.cell_exponent()))
        return add_lstm(builder, inputs[0], weights, exponent, self.return_sequences)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for an LSTM."""
        return layer_of_chain(cls, [node.head.lstm], name=node.name, scheme=scheme)

    def carry_weights(self, node: Node) -> None:
        """Copies the kernels and the bias."""
        source = node.head.lstm
        for mine, theirs in zip(self.cell.weights, source.cell.weights, strict=True):
            assign_copy(mine, theirs)
        self.trainable = source.trainable

    def save_own_variables(self, store):
        """Saves the state of the cell's random numbers. The cell saves the weights."""
        save_random_states(self, store)

    def load_own_variables(self, store):
        """Loads the state of the cell's random numbers, if the file has it."""
        load_random_states(self, store)

    def _weights(self) -> _Weights:
        cell = self.cell
        bias = ops.zeros((4 * self.units,)) if cell.bias is None else cell.bias
        return _Weights(*map(ops.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, bias)))

    def _by_gate(self, kernel):
        """Returns a kernel with an axis for the gates, each of which has one scale."""
        return ops.reshape(kernel, (-1, 4, self.units))

    def _fake_quantized(self) -> _Weights:
        """Returns the weights, the kernels on their grids."""

        def rounded(kernel):
            by_gate = self._by_gate(kernel)
            on_grid = fake_quantize_weights(by_gate, (0, 2), self._scheme())
            return ops.reshape(on_grid, kernel.shape)

        kernel, recurrent, bias = self._weights()
        return _Weights(rounded(kernel), rounded(recurrent), bias)

    def _rounded(self, kernel, least_scale):
        """Returns the integers of a kernel, and a scale for each of its columns."""
        integers, scale = _integer_kernel(
            self._by_gate(kernel), ops.reshape(least_scale, (1, 4, 1)), scheme=self._scheme()
        )
        scale = ops.repeat(ops.reshape(scale, (4,)), self.units)
        return ops.reshape(integers, kernel.shape), scale

    def _round_hidden(self, h):
        grid, scheme = self._neighbours().output.grid(), self._scheme()
        limits = scheme.activation_low, scheme.activation_high
        return fake_quantize(h, grid.scale, grid.zero_point, *limits)

    def _round_cell(self, c):
        powers = 2.0 ** np.arange(FINEST_CELL, COARSEST_CELL + 1, dtype="float32")
        scale = ops.take(ops.convert_to_tensor(powers), self.cell_exponent() - FINEST_CELL)
        return fake_quantize(c, scale, 0, *_CELL_LIMITS)

    def _result(self, states):
        """Returns the states of all steps, or of the last one."""
        return states if self.return_sequences else states[:, -1]

    def _check_sums(self, weights: LstmWeights, input_scale: Any) -> None:
        """Raises if a sum of products is too large for the multiplication in 32 bits."""
        kernel, scale, _, _, bias = (ops.convert_to_numpy(each) for each in weights)
        largest = self._scheme().largest_activation * np.abs(kernel.astype("float64")).sum(axis=0)
        largest += np.abs(bias.astype("float64"))
        # Kernels shift sums to the left first, by the exponent of the multiplier.
        multiplier = scale.astype("float64") * float(input_scale) * 2.0**12
        shifted = largest * np.maximum(2.0 ** np.ceil(np.log2(multiplier)), 1.0)
        if not np.all(shifted < 2.0**31):
            raise UnsupportedLayerError(
                "The inputs of the LSTM are too large: no kernel can scale the sums of its gates.",
                layer=self.name,
                received=f"inputs in steps of {float(input_scale):.3g}",
                expected="gates whose sums are below 524,288",
                fix="Scale the data, or normalize the inputs of the layer.",
            )


def _steps(x, kernel, recurrent_kernel, bias, round_hidden=None, round_cell=None):
    """Computes hidden and cell states of all steps, `(batch, steps, units)`, in float."""
    gates = ops.transpose(ops.matmul(x, kernel) + bias, (1, 0, 2))

    def step(states, gates):
        """Computes one step in float. Returns the new states, twice: `scan` collects them."""
        h, c = states
        sums = gates + ops.matmul(h, recurrent_kernel)
        sums = sums if round_cell is None else ops.clip(sums, *_GATE_LIMITS)
        i, f, candidate, o = ops.split(sums, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(candidate)
        c = c if round_cell is None else round_cell(c)
        h = ops.sigmoid(o) * ops.tanh(c)
        h = h if round_hidden is None else round_hidden(h)
        return (h, c), (h, c)

    start = ops.zeros_like(gates[0, :, : recurrent_kernel.shape[0]])
    _, states = ops.scan(step, (start, start), gates)
    return tuple(ops.transpose(each, (1, 0, 2)) for each in states)


@compiled
def _integer_kernel(kernel, least_scale, *, scheme):
    grid = weight_grid(kernel, (0, 2), scheme, least_scale)
    return quantize_weights(kernel, grid), grid.scale


@compiled
def _integer_bias(bias, scale, input_scale):
    return ops.cast(ops.round(bias * reciprocal(input_scale * scale)), "int32")
