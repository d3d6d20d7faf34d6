"""UNIDIRECTIONAL_SEQUENCE_LSTM of 8-bit integers, with 16-bit gates and a 16-bit cell state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.arithmetic.exact_float import as_float64, as_int32, quotient
from keras_qat.arithmetic.fixed_point import (
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_divide_by_pot,
)
from keras_qat.arithmetic.lstm_tables import (
    CELL_BITS,
    GateTables,
    fixed_point_tables,
    interpolated_tables,
)
from keras_qat.arithmetic.multiply import product_multiplier
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import float64

# The sum of a gate has 3 integer bits.
GATE_SCALE = np.float32(2.0**-12)
# Scales of the cell state.
FINEST_CELL, COARSEST_CELL = -15, CELL_BITS - 16
_LIMITS = -(2**15), 2**15 - 1
# Files limit the cell state, since CMSIS-NN's kernel takes a limit of 0 literally.
_CELL_LIMITS = 1 - 2**15, 2**15 - 1
_UNLIMITED = -(2**30), 2**30


class LstmWeights(NamedTuple):
    """The integers of an LSTM. Gates are in the order of Keras: input, forget, cell, output.

    Attributes:
        kernel: float32 whole numbers of shape `(channels, 4 * units)`.
        kernel_scale: float32 tensor of shape `(4 * units,)`, one value for each gate.
        recurrent_kernel: float32 whole numbers of shape `(units, 4 * units)`.
        recurrent_scale: float32 tensor like `kernel_scale`.
        bias: int32 tensor of shape `(4 * units,)`, in steps of the input's times the kernel's.
    """

    kernel: Any
    kernel_scale: Any
    recurrent_kernel: Any
    recurrent_scale: Any
    bias: Any


@dataclasses.dataclass(frozen=True)
class LstmKernel:
    """The differences between the kernels of an LSTM.

    Attributes:
        tables: Returns the sigmoid and the hyperbolic tangent.
        limits: The least and the greatest sum of products with the hidden state, before it is added
            to that of the input. The total is always limited to 16 bits.
        rounds_twice: Whether a product of the cell state is halved, and rounded, before it is
            shifted.
        rounds_multiplier: Whether the multiplier of the hidden state is rounded to float32.
    """

    tables: Callable[[], GateTables]
    limits: tuple[int, int]
    rounds_twice: bool
    rounds_multiplier: bool


# Source: `LstmStep` in TensorFlow Lite Micro's `micro/kernels/lstm_eval.h`.
MICRO = LstmKernel(interpolated_tables, _LIMITS, rounds_twice=True, rounds_multiplier=False)
# Source: `LstmStepInteger8x8_16` in TFLite's `kernels/lstm_eval.cc`.
LITERT = LstmKernel(fixed_point_tables, _UNLIMITED, rounds_twice=False, rounds_multiplier=True)


def lstm(
    x: Any,
    weights: LstmWeights,
    input_scale: Any,
    cell_exponent: Any,
    output_scale: Any,
    output_zero_point: Any,
    *,
    kernel: LstmKernel,
    largest_product: int,
) -> Any:
    """Computes the hidden states of all steps, from states of zero.

    Args:
        x: float32 tensor `(batch, steps, channels)` of integers, zero point subtracted.
        weights: The integers of the layer.
        input_scale: float32 scalar.
        cell_exponent: int32 scalar, from -15 to -9: the scale of the cell state is this power of 2.
        output_scale: float32 scalar, that of the hidden state.
        output_zero_point: int32 scalar.
        kernel: The kernel whose integers to compute.
        largest_product: Bound of the magnitude of an integer of `x` times one of a kernel.

    Returns:
        int32 tensor `(batch, steps, units)`, zero point subtracted.
    """
    own, hidden = (
        product_multiplier(scale, by, GATE_SCALE)
        for scale, by in (
            (input_scale, weights.kernel_scale),
            (output_scale, weights.recurrent_scale),
        )
    )
    sums = accumulate.matmul(x, weights.kernel, largest_product=largest_product)
    sums = accumulate.whole(sums) + weights.bias
    gates = clip(multiply_by_quantized_multiplier(sums, *own), *_LIMITS)
    tables = kernel.tables()
    tanh = ops.take(ops.convert_to_tensor(tables.tanh), cell_exponent + 15, axis=0)
    multiplier = _hidden_multiplier(output_scale, kernel)

    def step(states, gates):
        """Computes one step in integers. Returns the new states, twice: `scan` collects them."""
        h, c = states
        sums = accumulate.matmul(
            ops.cast(h, "float32"), weights.recurrent_kernel, largest_product=largest_product
        )
        added = multiply_by_quantized_multiplier(accumulate.whole(sums), *hidden)
        gates = clip(gates + clip(added, *kernel.limits), *_LIMITS)
        i, f, candidate, o = ops.split(gates, 4, axis=-1)
        i, f, o = (_looked_up(tables.sigmoid, each) for each in (i, f, o))
        candidate = _looked_up(tables.tanh[3], candidate)
        kept = _shifted(f * c, 15, kernel)
        new = _shifted(i * candidate, 30 + cell_exponent, kernel)
        c = clip(kept + new, *_CELL_LIMITS)
        h = multiply_by_quantized_multiplier(_looked_up(tanh, c) * o, *multiplier)
        h = clip(h + output_zero_point, -128, 127) - output_zero_point
        return (h, c), (h, c)

    steps = ops.transpose(gates, (1, 0, 2))
    start = ops.zeros_like(steps[0, :, : weights.recurrent_kernel.shape[0]])
    _, (states, _) = ops.scan(step, (start, start), steps)
    return ops.transpose(states, (1, 0, 2))


def _hidden_multiplier(output_scale: Any, kernel: LstmKernel) -> tuple[Any, Any]:
    """Returns the multiplier of the product of two numbers of 15 fraction bits."""
    with float64():
        ratio = quotient(as_float64(2.0**-30), as_float64(output_scale))
        if kernel.rounds_multiplier:
            ratio = ops.cast(ops.cast(ratio, "float32"), "float64")
        return quantize_multiplier(ratio)


def _shifted(product: Any, shift: Any, kernel: LstmKernel) -> Any:
    """Divides a product by a power of two, rounding to nearest."""
    if kernel.rounds_twice:
        product, shift = ops.right_shift(product + 1, 1), shift - 1
    return rounding_divide_by_pot(product, shift)


def _looked_up(table: Any, q: Any) -> Any:
    return ops.take(ops.convert_to_tensor(table), as_int32(q) + 2**15, axis=0)
