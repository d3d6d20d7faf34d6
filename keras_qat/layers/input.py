"""Quantization of the model's inputs."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.requantize import quantize
from keras_qat.layers.base import Centered, QuantizedLayer
from keras_qat.quantizers import Grid


@keras.saving.register_keras_serializable("keras_qat")
class QuantizeInput(QuantizedLayer):
    """Rounds a model input to its grid. In the file it is the input tensor's own quantization.

    Its range is observed once, by calibration or by the first training step, and then stays:
    training does not change the data.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    operators = ()
    range_momentum = 1.0
    makes_operator = False

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def float_forward(self, inputs, training=None):
        """Returns the input as float32."""
        del training
        return ops.cast(inputs, "float32")

    def integer(self, *inputs: Centered, output: Grid):
        """Rounds half away from zero, as LiteRT's QUANTIZE does."""
        scheme, x = self._scheme(), ops.cast(inputs[0].values, "float32")
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return ops.cast(quantize(x, *output, *limits) - output.zero_point, "float32")

    def lower(self, builder, *inputs):
        """Returns the input tensor: the builder has made it an integer one already."""
        return inputs[0]
