"""Layers whose operator copies integers."""

from __future__ import annotations

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.quantizers import Grid, Shared


class MovesValues(QuantizedLayer):
    """Base class of layers whose operator copies integers: its float forward is exact."""

    output_specification = Shared()

    def training_forward(self, inputs):
        """Calls the Keras layer: values from the grid stay on the grid."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Moves the integers as the float forward moves values; 0 is the zero point."""
        del output
        return self.float_forward(inputs[0].values, training=False)
