"""Normalization of each sample by its own statistics, in int32 operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.normalize import FRACTION, Normalization, half_divisors, normalize
from keras_qat.backend import compiled
from keras_qat.graph import layer_of
from keras_qat.layers.base import Centered, QuantizedLayer
from keras_qat.layers.drop_in import build_like
from keras_qat.layers.integer_operators import IntegerOperators
from keras_qat.layers.real_terms import Term, combined, lower_term, reduced, reshaped
from keras_qat.layers.registry import register
from keras_qat.quantizers import Grid


@keras.saving.register_keras_serializable("keras_qat")
class Normalize(keras.layers.Layer):
    """Divides groups of values by a statistic of theirs; it has no weights.

    Layer, group, RMS and unit normalization are all this, followed by a factor and an offset.

    Args:
        view: The shape that the input is viewed in, -1 for the first axis, at most 4 axes.
        axis: The axes of the view that a group extends over.
        kind: `"layer"` for `(x - mean) / sqrt(variance + epsilon)`, `"rms"` for
            `x / sqrt(mean(x**2) + epsilon)`, `"unit"` for `x / max(norm, epsilon)`.
        epsilon: As above.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> x = np.array([[1.0, 3.0, 5.0, 9.0]], "float32")
    >>> Normalize((-1, 2, 2), (2,), "layer", 0.0)(x).numpy().tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self, view: Sequence[int], axis: Sequence[int], kind: str, epsilon: float, **kwargs
    ):
        super().__init__(**kwargs)
        self.view, self.axis = tuple(view), tuple(axis)
        count = math.prod(self.view[each] for each in self.axis)
        self.rule = Normalization(count, kind, float(epsilon))

    def call(self, inputs):
        """Normalizes."""
        x = ops.reshape(inputs, self.view)
        if self.rule.centered:
            x = x - ops.mean(x, axis=self.axis, keepdims=True)
        squares = ops.sum(ops.square(x), axis=self.axis, keepdims=True)
        if self.rule.kind == "unit":
            # The limit inside: the root of 0 has no gradient.
            y = x * ops.rsqrt(ops.maximum(squares, self.rule.epsilon**2))
        else:
            y = x * ops.rsqrt(squares / self.rule.count + self.rule.epsilon)
        return ops.reshape(y, (-1, *inputs.shape[1:]))

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        rule = {"kind": self.rule.kind, "epsilon": self.rule.epsilon}
        return {**super().get_config(), "view": self.view, "axis": self.axis, **rule}


@register(layer_of(Normalize))
@keras.saving.register_keras_serializable("keras_qat")
class QNormalize(QuantizedLayer, Normalize):
    """`Normalize` in integers: sums, one table for the square root, and a division.

    LiteRT has no integer operator for any of these normalizations; as operators of int8 tensors
    the variance would be rounded to 8 bits. Plain int32 operators lose next to nothing, and
    the reference kernels agree with those for phones and PCs.

    Args:
        *args: Arguments of `Normalize`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `Normalize`.

    Example:
    >>> x = np.array([[3.0, 4.0]], "float32")
    >>> [round(float(y), 2) for y in QNormalize((-1, 2), (1,), "unit", 1e-12)(x)[0]]
    [0.6, 0.8]
    """

    operators = (
        "ADD",
        "CAST",
        "FLOOR_DIV",
        "GATHER",
        "MAXIMUM",
        "MINIMUM",
        "MUL",
        "RESHAPE",
        "SUB",
        "SUM",
    )

    def to_keras(self) -> list[keras.layers.Layer] | None:
        """Returns Keras's normalization over the last axes; None for groups of channels."""
        shape = self.get_build_config()["input_shape"]
        axes = [
            axis for axis in range(-len(shape) + 1, 0) if math.prod(shape[axis:]) == self.rule.count
        ]
        if len(self.view) != 2 or not axes:
            return None
        last = list(range(axes[-1], 0))
        epsilon = self.rule.epsilon
        if self.rule.kind == "unit":
            return [keras.layers.UnitNormalization(last, name=self.name)]
        if self.rule.kind == "rms":
            layer: Any = keras.layers.RMSNormalization(last, epsilon, name=self.name)
            layer.trainable = False  # its factors are in the layer behind it
        else:
            plain = {"center": False, "scale": False, "name": self.name}
            layer = keras.layers.LayerNormalization(last, epsilon, **plain)
        build_like(layer, self)  # a pass may trace it
        return [layer]

    def float_forward(self, inputs, training=None):
        """Normalizes in float."""
        del training
        return Normalize.call(self, inputs)

    def integer(self, *inputs: Centered, output: Grid):
        """Normalizes in int32."""
        ((values, grid),), scheme = inputs, self._scheme()
        limits = {"low": scheme.activation_low, "high": scheme.activation_high}
        # As in the file, the zero point is subtracted only if the mean is not.
        shift = grid.zero_point if self.rule.centered else 0
        viewed = ops.reshape(values, self.view)
        halves = half_divisors(grid.scale, output.scale, normalization=self.rule)
        options = {"axes": self.axis, "normalization": self.rule, **limits}
        y = _normalize_centered(viewed, shift, halves, output.zero_point, **options)
        return ops.reshape(y, (-1, *values.shape[1:]))

    def lower(self, builder, *inputs):
        """Adds about 25 operators: per value a cast, a square, a product, a division, limits."""
        if self.scheme is None:
            return lower_term(builder, self._real_term(inputs[0], builder.output_shape))
        links, scheme, shape = self._linked(), self._scheme(), builder.output_shape
        is_viewed = shape[1:] == self.view[1:]
        grid, output = links.inputs[0].grid(), links.output.grid()
        halves = half_divisors(grid.scale, output.scale, normalization=self.rule)
        add = IntegerOperators(builder)
        view = (None, *self.view[1:])
        x = inputs[0] if is_viewed else builder.reshape(inputs[0], view, part="view")
        x = add.widen(x, "wide")
        if self.rule.centered:
            x, rest = self._subtract_mean(add, x)
        else:
            x, rest = add.combine("SUB", x, _integer(grid.zero_point), "centered"), None
        half = self._half_divisor(add, x, rest, ops.convert_to_numpy(halves))
        offset = half
        if rest is not None:
            fraction = 2 ** (FRACTION - self.rule.mean_bits)
            offset = add.combine("SUB", half, add.combine("MUL", rest, fraction, "left"), "offset")
        x = add.combine("MUL", x, 2**FRACTION, "numerator")
        x = add.combine("ADD", x, offset, "rounded")
        divisor = add.combine("MUL", half, 2, "divisor")
        x = add.combine("FLOOR_DIV", x, divisor, "quotient")
        x = add.combine("ADD", x, _integer(output.zero_point), "moved")
        x = add.combine("MINIMUM", x, scheme.activation_high, "below")
        x = add.combine("MAXIMUM", x, scheme.activation_low, "clipped")
        y = add.narrow(x, None if is_viewed else "narrow")
        return y if is_viewed else builder.reshape(y, shape)

    def _real_term(self, x: Any, shape: Sequence[int | None]) -> Term:
        """What `float_forward` computes."""
        view = (None, *self.view[1:])
        viewed = reshaped(x, view)
        if self.rule.centered:
            viewed = viewed - reduced("MEAN", viewed, self.axis, view)
        squares = reduced("SUM", viewed * viewed, self.axis, view)
        if self.rule.kind == "unit":
            squares = combined("MAXIMUM", squares, self.rule.epsilon**2)
        else:
            squares = squares * (1.0 / self.rule.count) + self.rule.epsilon
        return reshaped(viewed * Term("RSQRT", (squares,)), shape)

    def _subtract_mean(self, add: IntegerOperators, x: Any) -> tuple[Any, Any]:
        """Subtracts the mean, rounded to an integer; also returns what rounding it left."""
        count, unit = self.rule.count, 2**self.rule.mean_bits
        total = add.reduce("SUM", x, self.axis, "total")
        total = add.combine("MUL", total, unit, "total_fine")
        total = add.combine("ADD", total, count // 2, "total_rounded")
        mean = add.combine("FLOOR_DIV", total, count, "mean")
        rounded = add.combine("ADD", mean, unit // 2, "mean_half")
        rounded = add.combine("FLOOR_DIV", rounded, unit, "mean_integer")
        whole = add.combine("MUL", rounded, unit, "mean_whole")
        rest = add.combine("SUB", mean, whole, "mean_rest")
        return add.combine("SUB", x, rounded, "centered"), rest

    def _half_divisor(self, add: IntegerOperators, x: Any, rest: Any, halves: np.ndarray) -> Any:
        """Sums the squares, and looks up half of what each group is divided by."""
        rule = self.rule
        squares = add.combine("MUL", x, x, "squares")
        if rule.square_unit > 1:
            squares = add.combine("ADD", squares, rule.square_unit // 2, "squares_rounded")
            squares = add.combine("FLOOR_DIV", squares, rule.square_unit, "squares_short")
        total = add.reduce("SUM", squares, self.axis, "squares_total")
        total = add.combine("MUL", total, rule.sum_factor, "squares_fine")
        if rest is not None:
            rest = add.combine("MUL", rest, rest, "rest_square")
            rest = add.combine("MUL", rest, rule.count, "rest_total")
            rest = add.combine("FLOOR_DIV", rest, rule.rest_unit, "rest_fine")
            total = add.combine("SUB", total, rest, "deviation")
            total = add.combine("MAXIMUM", total, 0, "positive")
        column = add.reshape(total, (None, 1), "column")
        index = add.index(column, rule.segments, "root")
        return add.reshape(add.look_up(halves, index, "root"), total.shape, "half")


def _integer(x: Any) -> int:
    return int(ops.convert_to_numpy(x))


@compiled
def _normalize_centered(x, shift, halves, zero_point, **options):
    q = normalize(ops.cast(x, "int32") + shift, halves, zero_point, **options)
    return ops.cast(q - zero_point, "float32")
