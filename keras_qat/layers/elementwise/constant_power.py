"""A power with a constant exponent: an element-wise function of one tensor."""

from __future__ import annotations

import keras
from keras import ops


class ConstantPower(keras.layers.Layer):
    """Raises a tensor to a constant power. `ops.power` has two operands; this layer has one.

    Args:
        exponent: The power.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> float(ConstantPower(3.0)(ops.array(-2.0)))
    -8.0
    """

    def __init__(self, exponent: float, **kwargs):
        super().__init__(**kwargs)
        self.exponent = float(exponent)

    def call(self, inputs):
        """Computes the power."""
        return ops.power(inputs, self.exponent)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "exponent": self.exponent}
