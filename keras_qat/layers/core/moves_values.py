"""Layers whose operator copies integers."""

from __future__ import annotations

import keras
from keras import tree

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.quantizers import Grid, Shared


class MovesValues(QuantizedLayer):
    """Base class of layers whose operator copies integers: its float forward is exact."""

    output_specification = Shared()

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape of the output, with the type of the input."""
        made = super().compute_output_spec(inputs, *args, **kwargs)
        return keras.KerasTensor(made.shape, tree.flatten(inputs)[0].dtype)

    def training_forward(self, inputs):
        """Calls the Keras layer: values from the grid stay on the grid."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Moves the integers as the float forward moves values; 0 is the zero point."""
        del output
        return self.float_forward(inputs[0].values, training=False)
