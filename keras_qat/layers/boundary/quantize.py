"""Quantization of the model's inputs."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.requantize import quantize
from keras_qat.layers.core.base import Centered, QuantizedLayer
from keras_qat.quantizers import Grid, InputStats


class RangeHolder(QuantizedLayer):
    """Base class of layers that know the range of a tensor of the model's border.

    Args:
        stats: Arguments of an `InputStats` that says what the integers mean, whatever is observed;
            None for a grid that covers the observed range.
        takes_pixels: Whether the model scales the tensor down as one does with pixels, so that data
            within 0 to 255 has this range, and a pixel is its own integer.
        **kwargs: Arguments of `QuantizedLayer`.
    """

    makes_operator = False

    def __init__(self, *args, stats: dict | None = None, takes_pixels: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.stats: InputStats | None = None
        self.takes_pixels = takes_pixels
        if takes_pixels and self.observer is not None:
            self.observer.usual_range = (0.0, 255.0)
        if stats is not None:
            self.set_stats(InputStats(**stats))

    def set_stats(self, stats: InputStats | None) -> None:
        """Says what the integers mean; None for what the observed range says.

        The layer keeps its observer, which knows what the data is like. The model has to be linked
        again.
        """
        self.stats = stats
        self.fixed_parameters = None if stats is None else stats.parameters(self._scheme())

    def meaning(self) -> tuple[float, float]:
        """Returns `(mean, std)`: the uint8 integer `q` stands for `(q - mean) / std` now."""
        parameters = self._linked().output
        scale, zero_point = parameters.grid()
        std = 1.0 / float(scale) if self.stats is None else self.stats.std
        return float(int(zero_point) - parameters.low), std

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def to_keras(self) -> list[keras.layers.Layer] | None:
        """Returns no layer: in float it does nothing."""
        return []

    def get_config(self):
        """Returns the constructor's arguments."""
        stats = {} if self.stats is None else {"stats": dataclasses.asdict(self.stats)}
        pixels = {"takes_pixels": True} if self.takes_pixels else {}
        return {**super().get_config(), **stats, **pixels}


@keras.saving.register_keras_serializable("keras_qat")
class QuantizeInput(RangeHolder):
    """Rounds a model input to its grid. In the file it is the input tensor's own quantization.

    A calibrated range stays, whatever training sees: training does not change the data. Without
    calibration the range is observed over the training steps.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `RangeHolder` and of `keras.layers.Layer`.
    """

    operators = ("QUANTIZE",)
    keeps_calibration = True

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
        """Returns the input tensor, or adds one QUANTIZE if the file's input has another type."""
        x = inputs[0]
        if x.dtype == self._scheme().dtype:
            return x
        return builder.operator("QUANTIZE", inputs)


@keras.saving.register_keras_serializable("keras_qat")
class Quantize(QuantizeInput):
    """Rounds what a float layer computes to a grid, for the layers behind it: one QUANTIZE.

    Args:
        scheme: The scheme.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    keeps_calibration = False
    makes_operator = True


@keras.saving.register_keras_serializable("keras_qat")
class ObserveRange(RangeHolder):
    """Returns its input: a tensor of the model's border that float layers take or make.

    It knows the range, for files whose inputs or outputs are to be integers all the same: these
    have a DEQUANTIZE or a QUANTIZE there, and those with float32 ends have none.

    Args:
        scheme: The scheme of the border.
        **kwargs: Arguments of `RangeHolder` and of `keras.layers.Layer`.

    Example:
    >>> ObserveRange(scheme="int8")(np.array([0.3], "float32")).numpy().tolist()
    [0.30000001192092896]
    """

    operators = ("DEQUANTIZE", "QUANTIZE")

    def call(self, inputs, training=None):
        """Returns the input as float32; training observes it."""
        x = ops.cast(inputs, "float32")
        if training:
            self.observer.track(x)
        return x

    def lower(self, builder, *inputs):
        """Returns the input: the file's ends are converted as the caller of the export asks."""
        return inputs[0]
