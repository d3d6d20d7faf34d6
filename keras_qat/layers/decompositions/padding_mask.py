"""The mask of sequences that are padded with a number, as `keras.layers.Masking` makes it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.rules import rounding_rule
from keras_qat.layers.decompositions.integer_operators import IntegerOperators
from keras_qat.quantizers import Grid, fake_quantize
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
class QPaddingMask(QuantizedLayer):
    """Whether a step of a sequence has a value other than that of the padding.

    The number of the padding is rounded as the padding itself is, and clipped as it is: a value
    that cannot be told from the padding counts as padding.

    Args:
        padding: The number in all channels of a padded step.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QPaddingMask(9.0)(np.array([[[1.0, 9.0], [9.0, 9.0]]])).numpy().tolist()
    [[True, False]]
    """

    operators = ("CAST", "EQUAL", "LOGICAL_NOT", "REDUCE_ALL")
    plain_dtype = "bool"
    output_specification = None

    def __init__(self, padding: float, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.padding = float(padding)

    def compute_output_shape(self, input_shape):
        """Returns the shape without the channels."""
        return input_shape[:-1]

    def float_forward(self, inputs, training=None):
        """Compares in float."""
        del training
        return _differs(inputs, self.padding)

    def training_forward(self, inputs):
        """Compares the steps of the grid, to which training rounds the padding, too."""
        grid, scheme = self._neighbours().inputs[0].grid(), self._scheme()
        limits = scheme.activation_low, scheme.activation_high
        number = ops.convert_to_tensor(self._number())
        padding = fake_quantize(number, grid.scale, grid.zero_point, *limits)
        return _differs(ops.round(inputs / grid.scale), ops.round(padding / grid.scale))

    def integer(self, *inputs: OffsetInts, output: Any):
        """Compares the integers."""
        del output
        ((values, grid),) = inputs
        return _differs(values, ops.cast(self._integer(grid) - grid.zero_point, "float32"))

    def lower(self, builder, *inputs):
        """Adds a comparison, the reduction over the channels, and a negation."""
        (x,) = inputs
        ones, number = (1,) * len(x.shape), self._number()
        if x.quantization is not None:
            integer = self._integer(self._neighbours().inputs[0].grid())
            number = np.int32(ops.convert_to_numpy(integer))
            x = IntegerOperators(builder).widen(x, "wide")
        constant = builder.constant("padding", np.reshape(number, ones))
        given = {"dtype": "bool", "shape": x.shape}
        found = builder.operator("EQUAL", (x, constant), part="equal", **given)
        axes = builder.constant("axes", np.array([len(x.shape) - 1], "int32"))
        options = {"keepDims": False}
        padded = builder.operator(
            "REDUCE_ALL", (found, axes), part="padded", dtype="bool", options=options
        )
        return builder.operator("LOGICAL_NOT", (padded,), dtype="bool")

    def _number(self) -> np.float32:
        return np.float32(self.padding)

    def _integer(self, grid: Grid) -> Any:
        """Returns the padding as an integer, rounded as the target rounds inputs."""
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return rounding_rule(self.target)(ops.convert_to_tensor(self._number()), *grid, *limits)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "padding": self.padding}


def _differs(x: Any, padding: Any) -> Any:
    return ops.any(ops.not_equal(x, padding), axis=-1)


def padding_of(layer: keras.layers.Masking) -> float:
    """Returns the number that a `Masking` layer takes as padding."""
    return float(ops.convert_to_numpy(layer.mask_value))


def mask_layer(layer: keras.layers.Masking, name: str) -> QPaddingMask:
    """Makes the layer that computes the mask of a `Masking` layer."""
    return QPaddingMask(padding_of(layer), name=name, dtype="float32")


@register(keras.layers.Masking)
def _masked(layer: Any, inputs: Any) -> Any:
    """Makes padded steps 0. Padding with 0 is 0 already."""
    if not padding_of(layer):
        return inputs
    mask = mask_layer(layer, "mask")(inputs)
    return ops.where(ops.expand_dims(mask, -1), inputs, 0.0)
