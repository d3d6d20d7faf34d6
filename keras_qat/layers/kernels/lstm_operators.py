"""The operators of an LSTM in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.lstm import GATE_SCALE, LstmWeights
from keras_qat.litert import Quantization, Tensor

_GATES = ("input", "forget", "cell", "output")


def add_lstm(
    builder: Any, x: Any, weights: LstmWeights, cell_exponent: int, return_sequences: bool
) -> Tensor:
    """Adds an LSTM, which starts from states of zero at each run of the file.

    The states are variables, which keep their values from one run to the next. So operators before
    the LSTM set them: a number of the input times zeros is the hidden state, and its QUANTIZE to 16
    bits is the cell state.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        x: LiteRT tensor of shape `(batch, steps, channels)`.
        weights: The integers of the layer.
        cell_exponent: The scale of the cell state is this power of two.
        return_sequences: Whether the output has all steps, or the last one.

    Returns:
        The LiteRT tensor of the output.
    """
    hidden, (batch, steps, _) = builder.output_quantization, x.shape
    units = weights.recurrent_kernel.shape[0]
    states = _zero_states(builder, x, (batch, units), cell_exponent)
    kernel, recurrent, bias = _constants(builder, x, weights)
    name = builder.name if return_sequences else f"{builder.name}/steps"
    output = Tensor(name, (batch, steps, units), "int8", hidden)
    grids = [*[_grid(GATE_SCALE)] * 4, hidden]
    dtypes = [*["int16"] * 4, "int8"]
    names = [f"{builder.name}/{each}_grid" for each in (*_GATES, "hidden")]
    builder.add(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        # Without peepholes, projection and normalization.
        (x, *kernel, *recurrent, *[None] * 3, *bias, *[None] * 2, *states, *[None] * 4),
        output,
        # Without a limit, CMSIS-NN's kernel clips the cell state to 0.
        {"fusedActivationFunction": "TANH", "cellClip": 2.0 ** (cell_exponent + 15)},
        # TensorFlow Lite Micro takes only intermediates without elements.
        tuple(map(Tensor, names, [(0,)] * 5, dtypes, grids)),
    )
    if return_sequences:
        return output
    last = _one_step(builder, output, steps - 1, units, "last")
    return builder.reshape(last, builder.output_shape)


def _zero_states(
    builder: Any, x: Any, shape: tuple[int | None, int], cell_exponent: int
) -> tuple[Tensor, Tensor]:
    """Returns the states, which operators have set to zero."""
    hidden, name = builder.output_quantization, builder.name
    first = _one_step(builder, x, 0, 1, "first")
    number = builder.reshape(first, (shape[0], 1), part="number")
    # Kernels multiply by the ratio of the scales: with this scale of the zeros it is 1.
    grid = _grid(hidden.scale[0] / x.quantization.scale[0])
    zeros = builder.constant("zeros", np.zeros((1, shape[1]), "int8"), grid)
    h = Tensor(f"{name}/hidden_state", shape, "int8", hidden, is_variable=True)
    builder.add("MUL", (number, zeros), h)
    grid = _grid(np.float32(2.0) ** cell_exponent)
    c = Tensor(f"{name}/cell_state", shape, "int16", grid, is_variable=True)
    builder.add("QUANTIZE", (h,), c)
    return h, c


def _constants(builder: Any, x: Any, weights: LstmWeights) -> tuple[list[Tensor], ...]:
    """Returns the kernels, the recurrent kernels and the biases of the gates."""
    arrays = LstmWeights(*(ops.convert_to_numpy(each) for each in weights))
    units = arrays.recurrent_kernel.shape[0]
    found: tuple[list[Tensor], ...] = ([], [], [])
    for i, gate in enumerate(_GATES):
        own = slice(i * units, (i + 1) * units)
        scales = [each[own][:1] for each in (arrays.kernel_scale, arrays.recurrent_scale)]
        columns = [each[:, own].T for each in (arrays.kernel, arrays.recurrent_kernel)]
        values = [*(each.astype("int8") for each in columns), arrays.bias[own]]
        grids = map(_grid, [*scales, x.quantization.scale * scales[0]])
        kinds = ("kernel", "recurrent_kernel", "bias")
        for tensors, kind, value, grid in zip(found, kinds, values, grids, strict=True):
            tensors.append(builder.constant(f"{gate}_{kind}", value, grid))
    return found


def _one_step(builder: Any, x: Tensor, step: int, channels: int, part: str) -> Tensor:
    """Adds a STRIDED_SLICE of the first channels of a step, with an axis of one step."""
    begin, end = (0, step, 0), (0, step + 1, channels)
    operands = {"begin": begin, "end": end, "strides": (1, 1, 1)}
    constants = [
        builder.constant(f"{part}_{role}", np.array(values, "int32"))
        for role, values in operands.items()
    ]
    return builder.operator(
        "STRIDED_SLICE",
        (x, *constants),
        part=part,
        shape=(x.shape[0], 1, channels),
        quantization=x.quantization,
        options={"beginMask": 1, "endMask": 1},  # any size of the batch
    )


def _grid(scale: Any) -> Quantization:
    """Returns quantization parameters with a zero point of 0."""
    return Quantization(np.asarray(scale, "float32").reshape(1), np.zeros(1, "int64"))
