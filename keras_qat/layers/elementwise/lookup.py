"""Any element-wise function: a table of 256 entries, read by GATHER."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.lookup import lookup_table
from keras_qat.graph import Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.layers.elementwise.float_terms import float_term
from keras_qat.layers.elementwise.functions import ELEMENTWISE, Function, function_of
from keras_qat.layers.elementwise.terms import lower_term
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


@register(ELEMENTWISE)
@keras.saving.register_keras_serializable("keras_qat")
class QLookup(Elementwise):
    """An element-wise function of one tensor: CAST, ADD and GATHER from a table of 256 integers.

    An 8-bit input has 256 values, so the table holds the function exactly: softplus, swish, mish
    and all others without an integer operator in LiteRT. Both runtimes agree on every element.

    Args:
        function: Name of the function in `keras.activations` or `keras.ops`.
        options: Keyword arguments of the function.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> [round(float(y), 4) for y in QLookup("softplus")(np.array([0.0, 1.0], "float32"))]
    [0.6931, 1.3133]
    """

    operators = ("CAST", "ADD", "GATHER")

    def __init__(
        self,
        function: str,
        options: dict[str, Any] | None = None,
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.function = Function(function, tuple((options or {}).items()))

    def float_forward(self, inputs, training=None):
        """Computes the function in float."""
        del training
        return self.function(inputs)

    def observed_values(self, y):
        """Returns the output, without results near a pole that no integer of the input has.

        An input of less than a step becomes 0 or one step, and a step is at least 1/255 of the
        largest input. Quotients by small numbers would otherwise have ranges in which all usual
        values are rounded to 0.
        """
        order, scheme = self._order_of_pole(), self._scheme()
        if not order:
            return y
        steps = scheme.activation_high - scheme.activation_low
        most = ops.min(ops.abs(y)) * float(steps) ** order
        return ops.clip(y, -most, most)

    def _order_of_pole(self) -> float:
        """Returns the exponent with which the function grows near 0; 0 without a pole."""
        exponent = dict(self.function.options).get("x2", 0.0)
        powers = {"reciprocal": -1.0, "rsqrt": -0.5, "power": exponent}
        return max(0.0, -powers.get(self.function.name, 0.0))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Looks each integer up in the table."""
        ((values, grid),) = inputs
        table = ops.cast(self._table(grid, output) - output.zero_point, "float32")
        index = ops.cast(values, "int32") + (grid.zero_point - self._scheme().activation_low)
        return ops.take(table, index, axis=0)

    def lower(self, builder, *inputs):
        """Adds CAST, ADD (if signed) and GATHER, or in float the operators of the function."""
        if self.scheme is None:
            return lower_term(builder, float_term(self.function, inputs[0]))
        neighbours, scheme = self._neighbours(), self._scheme()
        table = self._table(neighbours.inputs[0].grid(), neighbours.output.grid())
        entries = ops.convert_to_numpy(table).astype(scheme.dtype)
        wide = builder.operator(
            "CAST",
            inputs,
            part="wide",
            dtype="int32",
            options={"inDataType": scheme.dtype.upper(), "outDataType": "INT32"},
        )
        index = wide
        if scheme.activation_low:
            offset = builder.constant("offset", np.array(-scheme.activation_low, "int32"))
            index = builder.operator("ADD", (wide, offset), part="index", dtype="int32")
        return builder.operator(
            "GATHER",
            (builder.constant("table", entries, builder.output_quantization), index),
            options={"axis": 0},
        )

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for an activation or an element-wise operation."""
        function = function_of(node.head)
        assert function is not None
        return cls(function.name, dict(function.options), name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        function, options = self.function.name, dict(self.function.options)
        return {**super().get_config(), "function": function, "options": options}

    def _table(self, grid: Grid, output: Grid):
        scheme = self._scheme()
        limits = {"low": scheme.activation_low, "high": scheme.activation_high}
        return lookup_table(*grid, *output, function=self.function, **limits)
