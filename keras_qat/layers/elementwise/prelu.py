"""PRELU."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.prelu import prelu
from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of
from keras_qat.layers.core.constants import centered_constant, stored
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.quantizers import Grid, fake_quantize_weights

_HIGHEST_RANK = 4


class Sloped(Elementwise):
    """Base class of activations that are linear on either side of 0.

    The slopes are a constant with one scale for all of them, quantized like weights.
    """

    operators = ("PRELU",)

    @property
    def most_axes(self) -> int | None:
        """Largest number of axes that the kernel supports; None for any number."""
        return _HIGHEST_RANK

    def slopes(self) -> Any:
        """Returns the slopes for negative values, float32, of the rank of a sample."""
        raise NotImplementedError

    def build(self, input_shape):
        """Checks the rank, and builds the slopes and the range observer."""
        if self.most_axes is not None and len(input_shape) > self.most_axes:
            raise UnsupportedLayerError(
                "LiteRT's PRELU does not broadcast over so many dimensions.",
                layer=self.name,
                received=f"an input of shape {tuple(input_shape)}",
                expected=f"at most {self.most_axes} dimensions, the batch included",
                fix="Reshape the input before it, and its output back.",
            )
        super().build(input_shape)

    def float_forward(self, inputs, training=None):
        """Computes in float."""
        del training
        return _sloped(inputs, self.slopes())

    def training_forward(self, inputs):
        """Computes in float with the slopes on their grid, and rounds the output."""
        slopes = fake_quantize_weights(self.slopes(), None, self._scheme())
        return self.quantize_output(_sloped(inputs, slopes))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Computes as the reference PRELU does."""
        ((values, grid),), scheme = inputs, self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        slopes, slope_grid = self._integer_slopes()
        scales = grid.scale, slopes, slope_grid.scale
        return _sloped_centered(values, *scales, *output, *limits)

    def lower(self, builder, *inputs):
        """Adds one PRELU."""
        if self.scheme is None:
            alpha = builder.constant("alpha", ops.convert_to_numpy(self.slopes())[None])
            return builder.operator("PRELU", (inputs[0], alpha))
        slopes, grid = self._integer_slopes()
        alpha = builder.constant("alpha", *stored(slopes, grid, self._scheme().dtype))
        return builder.operator("PRELU", (inputs[0], alpha))

    def _integer_slopes(self) -> OffsetInts:
        """Returns the slopes in integers, with an axis for the batch."""
        return centered_constant(ops.convert_to_tensor(self.slopes())[None], self._scheme())


@register(layer_of(keras.layers.PReLU))
@keras.saving.register_keras_serializable("keras_qat")
class QPReLU(Sloped, keras.layers.PReLU):
    """ReLU with trained slopes for negative values: one PRELU.

    Args:
        *args: Arguments of `keras.layers.PReLU`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.PReLU`.

    Example:
    >>> QPReLU(alpha_initializer="ones")(np.array([[-2.0, 3.0]], "float32")).numpy().tolist()
    [[-2.0, 3.0]]
    """

    def slopes(self):
        """Returns the trained slopes."""
        return ops.convert_to_tensor(self.alpha)

    def carry_weights(self, node: Node) -> None:
        """Copies the slopes."""
        self.copy_from_keras(node.operations)


def _sloped(x, slopes):
    return ops.relu(x) - slopes * ops.relu(-x)


@compiled
def _sloped_centered(x, scale, slopes, slope_scale, output_scale, zero_point, low, high):
    slopes = ops.cast(slopes, "int32")
    grids = scale, 0, slopes, slope_scale, output_scale, zero_point
    q = prelu(ops.cast(x, "int32"), *grids, low, high)
    return ops.cast(q - zero_point, "float32")
