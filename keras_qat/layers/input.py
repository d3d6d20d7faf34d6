"""Quantization of the model's inputs."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.requantize import quantize
from keras_qat.layers.base import QuantizedLayer


@keras.saving.register_keras_serializable("keras_qat")
class QuantizeInput(QuantizedLayer):
    """Rounds a model input to its grid. In the file it is the input tensor's own quantization.

    Its range is observed once, by calibration or by the first training step, and then stays:
    training does not change the data.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    range_momentum = 1.0

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def float_forward(self, inputs, training=None):
        """Returns the input as float32."""
        del training
        return ops.cast(inputs, "float32")

    def integer(self, *centered):
        """Rounds half away from zero, as LiteRT's QUANTIZE does."""
        (x,), output, scheme = centered, self._linked().output, self._scheme()
        zero_point = output.zero_point
        q = quantize(
            ops.cast(x, "float32"),
            output.scale,
            zero_point,
            np.int32(scheme.activation_low),
            np.int32(scheme.activation_high),
        )
        return ops.cast(q - zero_point, "float32")

    def lower(self, builder, *inputs):
        """Returns the input tensor: the builder has made it an integer one already."""
        return inputs[0]
