"""Normalization of each sample by its own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.normalize import (
    LEAST_DEVIATION,
    STEPS,
    Normalization,
    inner_scales,
    normalize,
    reciprocals,
)
from keras_qat.backend import compiled
from keras_qat.graph import layer_of
from keras_qat.layers.core.axes import with_axis
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import build_like
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.decompositions.normalize_operators import NormalizingOperators
from keras_qat.layers.elementwise.terms import Term, combined, lower_term, reduced, reshaped
from keras_qat.quantizers import (
    Free,
    Grid,
    RangeObserver,
    RangeParameters,
    fake_quantize,
    reciprocal,
)


@keras.saving.register_keras_serializable("keras_qat")
class Normalize(keras.layers.Layer):
    """Divides groups of values by a statistic of the group, without weights.

    Layer, group, RMS and unit normalization are this layer, followed by a factor and an offset.

    Args:
        view: The shape in which the input is viewed, -1 for the first axis, at most 4 axes.
        axis: The axes of the view that a group extends over.
        kind: `"layer"` for `(x - mean) / sqrt(variance + epsilon)`, `"rms"` for
            `x / sqrt(mean(x**2) + epsilon)`, `"unit"` for `x / max(norm, epsilon)`.
        epsilon: The constant in these formulas.
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
        x = self.centered(inputs)
        y = x * self.reciprocal(x)
        return ops.reshape(y, (-1, *inputs.shape[1:]))

    def centered(self, inputs):
        """Returns the differences from the means, or the inputs, in the shape of the view."""
        x = ops.reshape(inputs, self.view)
        if self.rule.centered:
            x = x - ops.mean(x, axis=self.axis, keepdims=True)
        return x

    def reciprocal(self, x):
        """Returns the factor of each group, for the values of `centered`."""
        squares = ops.sum(ops.square(x), axis=self.axis, keepdims=True)
        if self.rule.kind == "unit":
            # The limit is inside the root, because the root of 0 has no gradient.
            return ops.rsqrt(ops.maximum(squares, self.rule.epsilon**2))
        return ops.rsqrt(squares / self.rule.count + self.rule.epsilon)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        rule = {"kind": self.rule.kind, "epsilon": self.rule.epsilon}
        return {**super().get_config(), "view": self.view, "axes": self.axis, **rule}

    @classmethod
    def from_config(cls, config):
        """Makes the layer of a configuration."""
        return super().from_config(with_axis(config))


@register(layer_of(Normalize))
@keras.saving.register_keras_serializable("keras_qat")
class QNormalize(QuantizedLayer, Normalize):
    """`Normalize` in integers: exact sums, one table for the reciprocal root, and a product.

    Sums of integers and of their squares are exact. The rounded mean is subtracted, the difference
    is multiplied by the reciprocal of the deviation, and the rounding error of the mean is
    subtracted last. For a deviation of less than 1.5 steps of the input, the reciprocal is the
    reciprocal of 1.5 steps: it has 8 bits, and such values are little more than noise.

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
        "BATCH_MATMUL",
        "CAST",
        "FLOOR_DIV",
        "GATHER",
        "MUL",
        "QUANTIZE",
        "RESHAPE",
        "SUB",
        "SUM",
        "TRANSPOSE",
    )
    int8_operators = ("BATCH_MATMUL",)

    reciprocal_observer: RangeObserver

    def specifications(self):
        """Returns the specifications of the output, the differences and the reciprocals."""
        inner = ("centered", "reciprocal") if self.rule.centered else ("reciprocal",)
        # Version 0.1 did not observe them.
        return {**super().specifications(), **dict.fromkeys(inner, Free(may_be_missing=True))}

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns Keras's normalization over the last axes, or None for groups of channels."""
        shape = self.get_build_config()["input_shape"]
        axes = [
            axis for axis in range(-len(shape) + 1, 0) if math.prod(shape[axis:]) == self.rule.count
        ]
        if len(self.view) != 2 or not axes:
            return None
        last = list(range(axes[-1], 0))
        epsilon = self.rule.epsilon
        common = {"name": self.name, "dtype": self.dtype_policy}
        if self.rule.kind == "unit":
            return [keras.layers.UnitNormalization(last, **common)]
        if self.rule.kind == "rms":
            layer: Any = keras.layers.RMSNormalization(last, epsilon, **common)
            layer.trainable = False  # its factors are in the next layer
        else:
            layer = keras.layers.LayerNormalization(
                last, epsilon, center=False, scale=False, **common
            )
        build_like(layer, self)  # a pass may trace it
        return [layer]

    def training_forward(self, inputs):
        """Normalizes in float, with the reciprocal and the output rounded to their grids."""
        x = self.centered(inputs)
        factor = self.reciprocal(x)
        if "centered" in self.observers():
            self.observers()["centered"].track(x)
        self.reciprocal_observer.track(factor)
        scheme, grid = self._scheme(), self._neighbours().inputs[0].grid()
        limits = scheme.activation_low, scheme.activation_high
        factor = fake_quantize(factor, self._reciprocal_scale(grid), limits[0], *limits)
        return self.quantize_output(ops.reshape(x * factor, (-1, *inputs.shape[1:])))

    def inner_tensor(self, name: str, inputs):
        """Computes the differences from the mean, or the reciprocals."""
        x = self.centered(inputs)
        return x if name == "centered" else self.reciprocal(x)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Normalizes in integers."""
        ((values, grid),), scheme = inputs, self._scheme()
        limits = {"low": scheme.activation_low, "high": scheme.activation_high}
        viewed = ops.reshape(values, self.view)
        scales = *self._middle_grid(grid), self._reciprocal_scale(grid)
        options = {"axes": self.axis, "normalization": self.rule, **limits}
        options |= {"multiply": self.integer_rule("MUL"), "subtract": self.integer_rule("SUB")}
        y = _normalize_centered(viewed, *grid, *scales, *output, **options)
        return ops.reshape(y, (-1, *values.shape[1:]))

    def lower(self, builder, *inputs):
        """Adds about 25 operators: 6 take all values, the others one value for each group."""
        if self.scheme is None:
            return lower_term(builder, self._real_term(inputs[0], builder.output_shape))
        grid = self._neighbours().inputs[0].grid()
        scale = self._reciprocal_scale(grid)
        table = reciprocals(grid.scale, scale, normalization=self.rule)
        scales = inner_scales(grid.scale, scale, self.rule.count)
        add = NormalizingOperators(builder, self.rule, scales)
        view, shape = (None, *self.view[1:]), builder.output_shape
        rows = add.group_last(inputs[0], view, self.axis)
        part = None if tuple(rows.shape) == tuple(shape) else "normalized"
        y = add.normalize(rows, table, self._middle_grid(grid), part)
        return add.group_back(y, view, self.axis, shape)

    def _middle_grid(self, grid: Grid) -> Grid:
        """Returns the grid of differences from the mean; the finest steps are the input's."""
        scheme, observer = self._scheme(), self.observers().get("centered")
        if observer is None:
            return grid
        own, is_seen = RangeParameters(scheme, [observer]).grid(), observer.updates > 0
        widest, middle = grid.scale * 2.0, np.int32(scheme.activation_low + 128)
        scale = ops.where(is_seen, ops.minimum(own.scale, widest), widest)
        zero_point = ops.where(is_seen, own.zero_point, middle)
        return Grid(ops.maximum(scale, grid.scale), zero_point)

    def _reciprocal_scale(self, grid: Grid) -> Any:
        """Returns the step of the observed reciprocals, limited to what the input can represent."""
        observer, rule = self.reciprocal_observer, self.rule
        roots = math.sqrt(rule.count) if rule.kind == "unit" else 1.0
        most = reciprocal(grid.scale) * np.float32(1 / (LEAST_DEVIATION * roots))
        most = ops.minimum(most, np.float32(rule.greatest))
        is_seen = ops.logical_and(observer.updates > 0, observer.maximum > 0)
        seen = ops.where(is_seen, ops.convert_to_tensor(observer.maximum), most)
        return ops.minimum(seen, most) * np.float32(1 / STEPS)

    def _real_term(self, x: Any, shape: Sequence[int | None]) -> Term:
        """Returns the computation of `float_forward` as a term."""
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


@compiled
def _normalize_centered(x, *parameters, **options):
    q = normalize(ops.cast(x, "int32"), *parameters, **options)
    return ops.cast(q - parameters[-1], "float32")
