"""Hard sigmoid: ADD with a fused RELU6, and MUL."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.backend import compiled
from keras_qat.layers.core.fused import activation_limits, fused_code
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.float_terms import float_term
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import Function, function_named
from keras_qat.layers.elementwise.terms import lower_term
from keras_qat.litert import Quantization
from keras_qat.quantizers import Grid

# The step of the sum, clipped at 6: 3 is a whole number of steps, and the result for 0 is exact.
_STEP = np.float32(6.0 / 254.0)
# Ratio of an input's scale to the sum's scale. XNNPACK does not take an addition beyond 256.
_MOST_RATIO = np.float32(128.0)


@register(function_named("hard_sigmoid"))
@keras.saving.register_keras_serializable("keras_qat")
class QHardSigmoid(Tabulated):
    """`relu6(x + 3) / 6`: one ADD with a fused RELU6 and one MUL.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> [float(y) for y in QHardSigmoid()(ops.array([-4.0, 0.0, 1.5]))]
    [0.0, 0.5, 0.75]
    """

    operators = ("ADD", "MUL")
    has_lookup = True

    def float_forward(self, inputs, training=None):
        """Computes the function in float."""
        del training
        return ops.hard_sigmoid(inputs)

    def table(self, grid: Grid, output: Grid):
        """Computes the output of the two kernels for each integer."""
        shifted = self._shifted(grid)
        low, high = activation_limits("relu6", *shifted, self._scheme())
        rules = {"add": self.integer_rule("ADD"), "multiply": self.integer_rule("MUL")}
        return _table(*grid, *shifted, low, high, *output, **rules, **self.limits())

    def lower(self, builder, *inputs):
        """Adds an ADD and a MUL, or in float the operators of the function."""
        if self.scheme is None:
            return lower_term(builder, float_term(Function("hard_sigmoid"), inputs[0]))
        shifted = self._shifted(self._neighbours().inputs[0].grid())
        total = builder.operator(
            "ADD",
            (inputs[0], self._constant(builder, "three", 3.0)),
            part="shifted",
            quantization=_stored(shifted),
            options={"fusedActivationFunction": fused_code("relu6", shifted)},
        )
        return builder.operator(
            "MUL",
            (total, self._constant(builder, "sixth", 1.0 / 6.0)),
            options={"fusedActivationFunction": "NONE"},
        )

    def _shifted(self, grid: Grid) -> Grid:
        """Returns the grid of `relu6(x + 3)`."""
        scale = ops.maximum(_STEP, grid.scale * (1 / _MOST_RATIO))
        return Grid(scale, ops.convert_to_tensor(np.int32(self._scheme().activation_low)))

    def _constant(self, builder, role: str, value: float):
        """Returns a constant that stores a number as the largest integer of the type."""
        scheme = self._scheme()
        largest = np.array(scheme.activation_high, scheme.dtype)
        scale = _scale_of(value, scheme.activation_high)
        return builder.constant(role, largest, Quantization(scale[None], np.zeros(1, "int64")))


def _scale_of(value: float, largest: int) -> np.ndarray:
    return np.asarray(value / largest, "float32")


def _stored(grid: Grid) -> Quantization:
    scale = np.asarray(ops.convert_to_numpy(grid.scale), "float32").reshape(1)
    return Quantization(scale, np.array([int(grid.zero_point)], "int64"))


@compiled
def _table(
    scale,
    zero_point,
    inner_scale,
    inner_zero_point,
    inner_low,
    inner_high,
    output_scale,
    output_zero_point,
    *,
    add,
    multiply,
    low,
    high,
):
    """Returns the output of ADD and MUL for each integer."""
    q, largest = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32")), np.int32(high)
    three, sixth = _scale_of(3.0, high), _scale_of(1.0 / 6.0, high)
    inner = inner_scale, inner_zero_point
    total = add(q, scale, zero_point, largest, three, 0, *inner, inner_low, inner_high)
    return multiply(total, *inner, largest, sixth, 0, output_scale, output_zero_point, low, high)
