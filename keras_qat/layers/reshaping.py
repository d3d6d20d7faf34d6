"""Layers that move values: RESHAPE and PAD."""

from __future__ import annotations

import keras
import numpy as np

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import layer_of
from keras_qat.layers.base import MovesValues
from keras_qat.layers.registry import register


@register(layer_of(keras.layers.Flatten))
@keras.saving.register_keras_serializable("keras_qat")
class QFlatten(MovesValues, keras.layers.Flatten):
    """Flattens all axes but the first: one RESHAPE.

    Args:
        *args: Arguments of `keras.layers.Flatten`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Flatten`.
    """

    def lower(self, builder, *inputs):
        """Adds one RESHAPE."""
        return builder.reshape(inputs[0], builder.output_shape)


@register(layer_of(keras.layers.Reshape))
@keras.saving.register_keras_serializable("keras_qat")
class QReshape(MovesValues, keras.layers.Reshape):
    """Reshapes all axes but the first: one RESHAPE.

    Args:
        *args: Arguments of `keras.layers.Reshape`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Reshape`.
    """

    def lower(self, builder, *inputs):
        """Adds one RESHAPE."""
        return builder.reshape(inputs[0], builder.output_shape)


@register(layer_of(keras.layers.ZeroPadding2D))
@keras.saving.register_keras_serializable("keras_qat")
class QZeroPadding2D(MovesValues, keras.layers.ZeroPadding2D):
    """Pads height and width with zeros: one PAD, which pads with the zero point.

    Args:
        *args: Arguments of `keras.layers.ZeroPadding2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.ZeroPadding2D`.
    """

    def build(self, input_shape):
        """Checks the layout."""
        if self.data_format != "channels_last":
            raise UnsupportedLayerError(
                "A model for LiteRT has channels last.",
                layer=self.name,
                received=f"data_format='{self.data_format}'",
                expected="data_format='channels_last'",
                fix="Define the model with data_format='channels_last'.",
            )
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one PAD."""
        paddings = np.array([(0, 0), *self.padding, (0, 0)], "int32")
        return builder.operator(
            "PAD",
            (inputs[0], builder.constant("paddings", paddings)),
            version=2,
            options_type="PadOptions",
        )
