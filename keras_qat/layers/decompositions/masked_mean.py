"""The mean of a padded sequence, in operators of int32."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.masked_mean import masked_mean, mean_factor
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.booleans import check_booleans
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.decompositions.integer_operators import IntegerOperators
from keras_qat.layers.moving.reshape import check_channels_last
from keras_qat.quantizers import Grid


@keras.saving.register_keras_serializable("keras_qat")
class QMaskedAverage(QuantizedLayer):
    """Mean over the steps that a mask keeps, as in `GlobalAveragePooling1D` with a mask.

    LiteRT has no such operator. The sum and the number of steps are int32, and so is their
    quotient, so that the mean is as accurate for one step as for all. The mean of no steps is 0.

    Args:
        keepdims: Whether the axis of the steps is kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> x, mask = np.array([[[1.0], [3.0], [9.0]]]), np.array([[True, True, False]])
    >>> QMaskedAverage()([x, mask]).numpy().tolist()
    [[2.0]]
    """

    operators = (
        "ADD",
        "CAST",
        "FLOOR_DIV",
        "MAXIMUM",
        "MINIMUM",
        "MUL",
        "RESHAPE",
        "SELECT_V2",
        "SUB",
        "SUM",
    )
    plain_inputs = ("bool",)
    is_opened = False

    def __init__(self, *, keepdims: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.keepdims = bool(keepdims)

    def compute_output_shape(self, input_shape):
        """Returns the shape without the steps, or with a single one."""
        batch, _, channels = input_shape[0]
        return (batch, 1, channels) if self.keepdims else (batch, channels)

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape. Raises if the mask is not booleans."""
        check_booleans(self.name, inputs[1:])
        return super().compute_output_spec(inputs, *args, **kwargs)

    def float_forward(self, inputs, training=None):
        """Averages in float."""
        del training
        x, mask = inputs
        kept = ops.expand_dims(mask, -1)
        total = ops.sum(ops.where(kept, x, 0.0), axis=1, keepdims=self.keepdims)
        count = ops.sum(ops.cast(kept, "float32"), axis=1, keepdims=self.keepdims)
        return total / ops.maximum(count, 1.0)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Averages in integers."""
        (x, grid), (mask, _) = inputs
        factor, divisor = mean_factor(grid.scale, output.scale, steps=x.shape[1])
        low, high = self._limits()
        y = masked_mean(x, mask, factor, divisor, output.zero_point, low, high)
        y = ops.cast(y - output.zero_point, "float32")
        return y if self.keepdims else ops.squeeze(y, axis=1)

    def lower(self, builder, *inputs):
        """Adds a selection, both sums, and the division."""
        x, mask = inputs
        batch, steps, _ = x.shape
        kept = builder.operator(
            "RESHAPE",
            (mask, builder.constant("kept/shape", np.array([-1, steps, 1], "int32"))),
            part="kept",
            shape=(batch, steps, 1),
            dtype="bool",
            options={"newShape": np.array([-1, steps, 1], "int32")},
        )
        grid = self.output_grid()
        if grid is None:
            return self._lower_float(builder, x, kept)
        source = self._neighbours().inputs[0].grid()
        add = IntegerOperators(builder)
        zero = int(ops.convert_to_numpy(source.zero_point))
        factor, divisor = (
            int(ops.convert_to_numpy(each))
            for each in mean_factor(source.scale, grid.scale, steps=steps)
        )
        values = self._selected(builder, x, kept, zero)
        total = add.reduce("SUM", add.widen(values, "wide"), (1,), "total")
        total = add.combine("SUB", total, steps * zero, "centered")
        count = add.reduce("SUM", add.widen(kept, "ones"), (1,), "count")
        count = add.combine("MAXIMUM", count, 1, "steps")
        y = add.combine("MUL", total, factor, "scaled")
        y = add.combine("ADD", y, add.combine("MUL", count, divisor // 2, "half"), "rounded")
        y = add.combine("FLOOR_DIV", y, add.combine("MUL", count, divisor, "divisor"), "mean")
        y = add.combine("ADD", y, int(ops.convert_to_numpy(grid.zero_point)), "shifted")
        low, high = map(int, self._limits())
        y = add.combine("MINIMUM", add.combine("MAXIMUM", y, low, "above"), high, "clipped")
        if self.keepdims:
            return add.narrow(y, None)
        return builder.reshape(add.narrow(y, "narrow"), builder.output_shape)

    def _selected(self, builder, x, kept, zero: int):
        """Adds the selection of the values, with the zero point elsewhere."""
        dtype = "float32" if x.quantization is None else x.dtype
        constant = builder.constant("zero", np.full((1, 1, 1), zero, dtype), x.quantization)
        given = {"part": "values", "shape": x.shape, "quantization": x.quantization}
        return builder.operator("SELECT_V2", (kept, x, constant), **given)

    def _lower_float(self, builder, x, kept):
        """Adds the operators in float."""
        batch, _, _ = x.shape
        axes = builder.constant("axes", np.array([1], "int32"))
        types = {"inDataType": "BOOL", "outDataType": "FLOAT32"}
        keep = {"keepDims": self.keepdims}
        ones = builder.operator("CAST", (kept,), part="ones", shape=kept.shape, options=types)
        shape = (batch, 1, 1) if self.keepdims else (batch, 1)
        count = builder.operator("SUM", (ones, axes), part="count", shape=shape, options=keep)
        least = builder.constant("least", np.ones((1,) * len(shape), "float32"))
        count = builder.operator("MAXIMUM", (count, least), part="steps", shape=shape)
        values = self._selected(builder, x, kept, 0)
        total = builder.operator("SUM", (values, axes), part="total", options=keep)
        return builder.operator("DIV", (total, count))

    def _limits(self):
        scheme = self._scheme()
        return np.int32(scheme.activation_low), np.int32(scheme.activation_high)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "keepdims": self.keepdims}


@register(keras.layers.GlobalAveragePooling1D)
def _masked_average(layer: Any, inputs: Any, mask: Any) -> Any:
    """Averages with a mask. Without one the layer has a rule."""
    check_channels_last(layer.name, layer.data_format)
    return QMaskedAverage(name="average", keepdims=layer.keepdims)([inputs, mask])
