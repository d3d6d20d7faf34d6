"""Pooling of whole sequences and images: MEAN and MAX_POOL_2D."""

from __future__ import annotations

import keras

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.sequences import image_shape
from keras_qat.layers.pooling.reductions import add_reduction, averaged
from keras_qat.layers.pooling.windows import add_pooling, check_pooled
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


class GlobalPooling(QuantizedLayer):
    """Base class of poolings of all steps, or of a whole image."""

    activation_bits = (8, 16)

    def build(self, input_shape):
        """Checks the layout and that the sizes are known."""
        check_pooled(self, input_shape)
        super().build(input_shape)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer. Raises for a mask."""
        if len(node.inputs) != 1:
            raise UnsupportedLayerError(
                "A mask has no counterpart in LiteRT.",
                layer=node.name,
                received=f"{len(node.inputs)} tensors",
                expected="one tensor, without a mask",
                fix="Pool without a mask.",
            )
        return super().from_match(node, scheme)


class GlobalAverage(GlobalPooling):
    """Base class of layers that are a MEAN over all axes between the batch and the channels."""

    operators = ("MEAN",)
    keepdims: bool

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Sums in int32, then scales as the target's MEAN does."""
        return averaged(self, inputs[0], self._axes(), output)

    def lower(self, builder, *inputs):
        """Adds one MEAN."""
        return add_reduction(builder, "MEAN", inputs[0], self._axes(), self.keepdims)

    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, self.input_spec.ndim - 1))


@register(layer_of(keras.layers.GlobalMaxPooling1D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalMaxPooling1D(GlobalPooling, MovesValues, keras.layers.GlobalMaxPooling1D):
    """Maximum over all steps: one MAX_POOL_2D between two RESHAPEs, with one range for all.

    Args:
        *args: Arguments of `keras.layers.GlobalMaxPooling1D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalMaxPooling1D`.
    """

    operators = ("MAX_POOL_2D", "RESHAPE")

    def lower(self, builder, *inputs):
        """Adds one MAX_POOL_2D, and a RESHAPE for each change of the rank."""
        return _add_maximum(builder, inputs[0])


@register(layer_of(keras.layers.GlobalMaxPooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalMaxPooling2D(GlobalPooling, MovesValues, keras.layers.GlobalMaxPooling2D):
    """Maximum over height and width: one MAX_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.GlobalMaxPooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalMaxPooling2D`.
    """

    operators = ("MAX_POOL_2D", "RESHAPE")

    def lower(self, builder, *inputs):
        """Adds one MAX_POOL_2D, and a RESHAPE for each change of the rank."""
        return _add_maximum(builder, inputs[0])


@register(layer_of(keras.layers.GlobalAveragePooling1D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalAveragePooling1D(GlobalAverage, keras.layers.GlobalAveragePooling1D):
    """Mean over all steps: one MEAN, with a range of its own.

    Args:
        *args: Arguments of `keras.layers.GlobalAveragePooling1D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalAveragePooling1D`.
    """


@register(layer_of(keras.layers.GlobalAveragePooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalAveragePooling2D(GlobalAverage, keras.layers.GlobalAveragePooling2D):
    """Mean over height and width: one MEAN, with a range of its own.

    Args:
        *args: Arguments of `keras.layers.GlobalAveragePooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalAveragePooling2D`.
    """


def _add_maximum(builder, x):
    """Adds a MAX_POOL_2D with one window, between optional RESHAPEs."""
    image = image_shape(x.shape)
    if image != x.shape:
        x = builder.reshape(x, image, part="row")
    batch, height, width, channels = image
    shape = (batch, 1, 1, channels)
    part = None if shape == builder.output_shape else "pooled"
    window = (height, width)
    pooled = add_pooling(builder, "MAX_POOL_2D", x, window, part=part, shape=shape)
    return pooled if part is None else builder.reshape(pooled, builder.output_shape)
