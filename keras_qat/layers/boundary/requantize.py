"""QUANTIZE from int8 to int8."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.quantizers import Grid
from keras_qat.scheme import BYTE


@keras.saving.register_keras_serializable("keras_qat")
class Requantize(QuantizedLayer):
    """Converts a tensor from a prescribed range to a range that others can share: one QUANTIZE.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    activation_bits = (8, 16)
    operators = ("QUANTIZE",)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def float_forward(self, inputs, training=None):
        """Returns the input."""
        del training
        return inputs

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns no layer, since the layer does nothing in float."""
        return []

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Rescales the integers as the target's QUANTIZE does."""
        ((values, grid),) = inputs
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        grids = grid.scale, np.int32(0), *output
        q = self.integer_rule("QUANTIZE")(ops.cast(values, "int32"), *grids, *limits)
        return ops.cast(q - output.zero_point, "float32")

    def takes_delegate(self, code: str) -> bool:
        """Returns whether XNNPACK takes the tensors: both have 8 bits."""
        del code
        return self._neighbours().inputs[0].low >= -(2 ** (BYTE - 1))

    def lower(self, builder, *inputs):
        """Adds one QUANTIZE."""
        return builder.operator("QUANTIZE", inputs)
