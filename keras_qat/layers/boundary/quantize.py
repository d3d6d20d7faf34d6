"""Layers that quantize inputs and float tensors, and that observe ranges at the boundary."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidInputStatsError
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.quantizers import Free, Grid, InputStats


class BoundaryLayer(QuantizedLayer):
    """Base class of layers that have the range of a boundary tensor of the model.

    Args:
        stats: Arguments of an `InputStats`, which fixes the quantization parameters. None for
            parameters that cover the observed range. After a change of the attribute the model
            needs `assign_params`.
        takes_pixels: Whether the model scales the tensor down like pixels. Then data within 0 to
            255 has the range 0 to 255, and the integers are the pixels.
        **kwargs: Arguments of `QuantizedLayer`.

    Attributes:
        keeps_calibration: Whether training holds a calibrated range even if no sample fits it.
    """

    activation_bits = (8, 16)
    makes_operator = False
    keeps_calibration = False
    learns_range = False  # training does not change the data

    def __init__(self, *args, stats: dict | None = None, takes_pixels: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        if stats is not None and self.scheme is not None and self.scheme.activation_symmetric:
            raise InvalidInputStatsError(
                "The integers of an input of 16 bits have no statistics: their zero point is 0.",
                layer=self.name,
                received=f"quantized_input_stats for a model in '{self.scheme.name}'",
                expected="no statistics",
                fix="Leave `quantized_input_stats` out: the input covers the calibrated range.",
            )
        self.stats = None if stats is None else InputStats(**stats)
        self.takes_pixels = takes_pixels

    def specifications(self):
        """Returns the specification of the output. It is observed even if statistics fix it."""
        usual = (0.0, 255.0) if self.takes_pixels else None
        observed = Free(usual_range=usual, keeps_calibration=self.keeps_calibration)
        return {"output": observed if self.stats is None else self.stats.specification(observed)}

    def meaning(self) -> tuple[float, float]:
        """Returns `(mean, std)`. The uint8 integer `q` represents `(q - mean) / std` now."""
        parameters = self._neighbours().output
        scale, zero_point = parameters.grid()
        std = 1.0 / float(scale) if self.stats is None else self.stats.std
        return float(int(zero_point) - parameters.low), std

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns no layers: in float this layer is the identity."""
        return []

    def get_config(self):
        """Returns the constructor's arguments."""
        stats = {} if self.stats is None else {"stats": dataclasses.asdict(self.stats)}
        pixels = {"takes_pixels": True} if self.takes_pixels else {}
        return {**super().get_config(), **stats, **pixels}


@keras.saving.register_keras_serializable("keras_qat")
class QuantizeInput(BoundaryLayer):
    """Rounds a model input to its grid. In the file it is the quantization of the input tensor.

    Training does not change a calibrated range, since it does not change the data. Without
    calibration, training observes the range.

    Args:
        state_of: For an input that is a state, the name of the layer whose output is the next
            state. Both have the same quantization parameters.
        scheme: The scheme.
        **kwargs: Arguments of `BoundaryLayer` and of `keras.layers.Layer`.
    """

    operators = ("QUANTIZE",)
    keeps_calibration = True

    def __init__(self, *args, state_of: str | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.state_of = state_of

    def get_config(self):
        """Returns the constructor's arguments."""
        state = {} if self.state_of is None else {"state_of": self.state_of}
        return {**super().get_config(), **state}

    def float_forward(self, inputs, training=None):
        """Returns the input as float32."""
        del training
        return ops.cast(inputs, "float32")

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Rounds as the target's QUANTIZE does."""
        scheme, x = self._scheme(), ops.cast(inputs[0].values, "float32")
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        rule = self.integer_rule("QUANTIZE", "float32")
        return ops.cast(rule(x, *output, *limits) - output.zero_point, "float32")

    def lower(self, builder, *inputs):
        """Returns the input tensor, or adds one QUANTIZE if the file's input has another type."""
        x = inputs[0]
        if x.dtype == self._scheme().dtype:
            return x
        return builder.operator("QUANTIZE", inputs)


@keras.saving.register_keras_serializable("keras_qat")
class Quantize(QuantizeInput):
    """Rounds the output of a float layer to a grid, for the next layers: one QUANTIZE.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    keeps_calibration = False
    makes_operator = True


@keras.saving.register_keras_serializable("keras_qat")
class ObserveRange(BoundaryLayer):
    """Returns its input: a boundary tensor of the model that float layers take or make.

    The layer has the range of the tensor, for files with integer inputs or outputs. These files
    have a DEQUANTIZE or a QUANTIZE there. Files with float32 inputs and outputs have none.

    Args:
        scheme: The scheme of the boundary.
        **kwargs: Arguments of `BoundaryLayer` and of `keras.layers.Layer`.

    Example:
    >>> ObserveRange(scheme="int8")(np.array([0.3], "float32")).numpy().tolist()
    [0.30000001192092896]
    """

    operators = ("DEQUANTIZE", "QUANTIZE")

    def call(self, inputs, training=None):
        """Returns the input as float32. Training observes it."""
        x = ops.cast(inputs, "float32")
        if training:
            self.observer.track(x)
        return x

    def lower(self, builder, *inputs):
        """Returns the input. The export converts inputs and outputs to the requested types."""
        return inputs[0]
