"""Log-softmax, in int32 operators."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.arithmetic.log_softmax import (
    LOWEST_DIFFERENCE,
    MOST_CLASSES,
    STEP_BITS,
    LogSoftmax,
    log_softmax,
    log_softmax_tables,
)
from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node
from keras_qat.layers.core.activation_names import activation_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.decompositions.integer_operators import IntegerOperators
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


@register(activation_of("log_softmax"))
@keras.saving.register_keras_serializable("keras_qat")
class QLogSoftmax(Elementwise):
    """Logarithm of a softmax over the last axis: two tables, a sum, and a table of its logarithm.

    The int8 kernels of LOG_SOFTMAX fix the output scale to 16/256, which is too coarse for a loss.
    With int32 operators the output has a range of its own, and all kernels agree.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> [round(float(y), 4) for y in QLogSoftmax()(ops.array([[0.0, 1.0]]))[0]]
    [-1.3133, -0.3133]
    """

    operators = (
        "ADD",
        "CAST",
        "FLOOR_DIV",
        "GATHER",
        "MAXIMUM",
        "MINIMUM",
        "REDUCE_MAX",
        "RESHAPE",
        "SUB",
        "SUM",
    )

    def build(self, input_shape):
        """Checks the number of classes and builds the range observer."""
        if input_shape[-1] > MOST_CLASSES:
            raise UnsupportedLayerError(
                "The sum of so many exponentials does not fit an int32.",
                layer=self.name,
                received=f"{input_shape[-1]} classes",
                expected=f"at most {MOST_CLASSES}",
                fix="Remove the log-softmax: the order of the classes is that of the logits.",
            )
        super().build(input_shape)
        self._rule = LogSoftmax(input_shape[-1])

    def float_forward(self, inputs, training=None):
        """Computes in float."""
        del training
        return ops.log_softmax(inputs, axis=-1)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Computes in int32. Only differences of the input matter."""
        ((values, grid),), scheme = inputs, self._scheme()
        tables = log_softmax_tables(grid.scale, output.scale, rule=self._rule)
        limits = {"low": scheme.activation_low, "high": scheme.activation_high}
        return _log_softmax_centered(values, *tables, output.zero_point, rule=self._rule, **limits)

    def lower(self, builder, *inputs):
        """Adds about 17 operators: per value a cast, two lookups, differences, a shift, limits."""
        if self.scheme is None:
            return builder.operator("LOG_SOFTMAX", inputs)
        neighbours, scheme, rule = self._neighbours(), self._scheme(), self._rule
        grid, output = neighbours.inputs[0].grid(), neighbours.output.grid()
        tables = log_softmax_tables(grid.scale, output.scale, rule=rule)
        exponentials, differences, logarithms = (ops.convert_to_numpy(table) for table in tables)
        shape, add = builder.output_shape, IntegerOperators(builder)
        is_viewed = len(shape) == 2
        rows = (None, shape[-1])
        x = inputs[0] if is_viewed else builder.reshape(inputs[0], rows, part="rows")
        x = add.widen(x, "wide")
        x = add.combine("SUB", x, add.reduce("REDUCE_MAX", x, (1,), "largest"), "difference")
        index = add.combine("SUB", x, LOWEST_DIFFERENCE, "index")
        terms = add.look_up(exponentials, index, "exponential")
        total = add.reduce("SUM", terms, (1,), "total")
        others = add.combine("SUB", total, 2**rule.bits, "others")
        logarithm = add.look_up(logarithms, add.index(others, rule.segments, "log"), "logarithm")
        x = add.look_up(differences, index, "steps")
        x = add.combine("SUB", x, logarithm, "fine")
        x = add.combine("FLOOR_DIV", x, 2**STEP_BITS, "whole")
        zero_point = int(ops.convert_to_numpy(output.zero_point))
        x = add.combine("ADD", x, zero_point, "moved")
        x = add.combine("MINIMUM", x, scheme.activation_high, "below")
        x = add.combine("MAXIMUM", x, scheme.activation_low, "clipped")
        y = add.narrow(x, None if is_viewed else "narrow")
        return y if is_viewed else builder.reshape(y, shape)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer."""
        return cls(name=node.name, scheme=scheme)


@compiled
def _log_softmax_centered(x, *tables, **options):
    q = log_softmax(ops.cast(x, "int32"), *tables, **options)
    return ops.cast(q - tables[-1], "float32")
