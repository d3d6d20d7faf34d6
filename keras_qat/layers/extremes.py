"""MAXIMUM and MINIMUM."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.arithmetic.requantize import quantize
from keras_qat.graph import any_of, layer_of, operation_named
from keras_qat.layers.base import Centered
from keras_qat.layers.binary import Binary
from keras_qat.layers.registry import register
from keras_qat.quantizers import Grid, RangeObserver
from keras_qat.scheme import Scheme


class Extreme(Binary):
    """What both operators have in common: operands and output have one range.

    A constant is rounded to the grid of the output. Its values may lie far beyond those of the
    tensor, so the range is then that of the outputs seen, and not that of the constant.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `Binary`.
    """

    shares_range = True
    operator_code: str
    function: Any  # of two tensors

    def __init__(self, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        if self.scheme is not None and self.constant is not None:
            self.observer = RangeObserver(name="range")

    def float_forward(self, inputs, training=None):
        """Selects in float."""
        del training
        operands = self.in_order(tree.flatten(inputs), self.operand)
        return functools.reduce(self.function, operands)

    def training_forward(self, inputs):
        """Selects; where some values are those of a constant, they are rounded to the grid."""
        y = self.float_forward(inputs, training=True)
        return y if self.constant is None else self.quantize_output(y)

    def integer(self, *inputs: Centered, output: Grid):
        """Selects among the integers."""
        constant = None
        if self.constant is not None:
            constant = ops.cast(self._integers(output) - output.zero_point, "float32")
        return self.function(*self.in_order([x.values for x in inputs], constant))

    def lower(self, builder, *inputs):
        """Adds one operator."""
        values, grid = None, self.output_grid()
        if self.constant is not None and grid is not None:
            values = ops.convert_to_numpy(self._integers(grid)).astype(self._scheme().dtype)
        constant = self.lowered_operand(builder, inputs[0], values, builder.output_quantization)
        return builder.operator(
            self.operator_code,
            self.in_order(inputs, constant),
        )

    def _integers(self, grid: Grid):
        """The constant in integers, zero point included."""
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return quantize(ops.convert_to_tensor(self.operand), *grid, *limits)


@register(any_of(layer_of(keras.layers.Maximum), operation_named("Maximum")))
@keras.saving.register_keras_serializable("keras_qat")
class QMaximum(Extreme):
    """The larger one of two operands, element by element: one MAXIMUM.

    Args:
        constant: The arguments of a `Constant`, if one operand is one.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QMaximum()([np.array([[1.0, -3.0]]), np.array([[0.0, 1.0]])]).numpy().tolist()
    [[1.0, 1.0]]
    """

    keras_class = keras.layers.Maximum
    operators = ("MAXIMUM",)
    operator_code = "MAXIMUM"
    function = staticmethod(ops.maximum)


@register(any_of(layer_of(keras.layers.Minimum), operation_named("Minimum")))
@keras.saving.register_keras_serializable("keras_qat")
class QMinimum(Extreme):
    """The smaller one of two operands, element by element: one MINIMUM.

    Args:
        constant: The arguments of a `Constant`, if one operand is one.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QMinimum()([np.array([[1.0, -3.0]]), np.array([[0.0, 1.0]])]).numpy().tolist()
    [[0.0, -3.0]]
    """

    keras_class = keras.layers.Minimum
    operators = ("MINIMUM",)
    operator_code = "MINIMUM"
    function = staticmethod(ops.minimum)
