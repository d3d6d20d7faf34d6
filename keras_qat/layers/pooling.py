"""MAX_POOL_2D, AVERAGE_POOL_2D and MEAN."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.pooling import average, mean
from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import layer_of
from keras_qat.layers.base import Centered, MovesValues, QuantizedLayer
from keras_qat.layers.registry import register
from keras_qat.quantizers import Grid


class Pooling2D(MovesValues):
    """What the two pooling operators over windows have in common."""

    operator_code: str

    def build(self, input_shape):
        """Checks the layout and that the windows are known."""
        check_spatial(self, input_shape)
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one pooling operator."""
        return builder.operator(
            self.operator_code,
            inputs,
            version=2,
            options_type="Pool2DOptions",
            options={
                "padding": self.padding.upper(),
                "strideH": self.strides[0],
                "strideW": self.strides[1],
                "filterHeight": self.pool_size[0],
                "filterWidth": self.pool_size[1],
                "fusedActivationFunction": "NONE",
            },
        )


@register(layer_of(keras.layers.MaxPooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QMaxPooling2D(Pooling2D, keras.layers.MaxPooling2D):
    """Max pooling: one MAX_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.MaxPooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.MaxPooling2D`.
    """

    operator_code = "MAX_POOL_2D"


@register(layer_of(keras.layers.GlobalMaxPooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalMaxPooling2D(MovesValues, keras.layers.GlobalMaxPooling2D):
    """Maximum over height and width: one MAX_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.GlobalMaxPooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalMaxPooling2D`.
    """

    def build(self, input_shape):
        """Checks the layout and that the sizes are known."""
        check_spatial(self, input_shape)
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one MAX_POOL_2D, and a RESHAPE unless the layer keeps the dimensions."""
        batch, height, width, channels = inputs[0].shape
        pooled = builder.operator(
            "MAX_POOL_2D",
            inputs,
            part=None if self.keepdims else "pooled",
            shape=(batch, 1, 1, channels),
            version=2,
            options_type="Pool2DOptions",
            options={
                "padding": "VALID",
                "strideH": 1,
                "strideW": 1,
                "filterHeight": height,
                "filterWidth": width,
                "fusedActivationFunction": "NONE",
            },
        )
        return pooled if self.keepdims else builder.reshape(pooled, builder.output_shape)


@register(layer_of(keras.layers.AveragePooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QAveragePooling2D(Pooling2D, keras.layers.AveragePooling2D):
    """Average pooling: one AVERAGE_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.AveragePooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.AveragePooling2D`.
    """

    operator_code = "AVERAGE_POOL_2D"

    def training_forward(self, inputs):
        """Averages and rounds to the grid of the input."""
        return self.quantize_output(self.float_forward(inputs, training=True))

    def integer(self, *inputs: Centered, output: Grid):
        """Sums integers, then divides rounding half away from zero."""
        values = inputs[0].values
        counts = ops.convert_to_tensor(self._window_sizes(values.shape))
        return _average_centered(self.float_forward(values), counts, output.zero_point)

    def _window_sizes(self, shape):
        """How many values each output averages, less than a window at a padded border."""
        sizes = []
        for axis in range(2):
            size, window, stride = shape[axis + 1], self.pool_size[axis], self.strides[axis]
            if self.padding == "valid":
                sizes.append(np.full((size - window) // stride + 1, window))
                continue
            count = -(-size // stride)
            before = max((count - 1) * stride + window - size, 0) // 2
            starts = np.arange(count) * stride - before
            sizes.append(np.minimum(starts + window, size) - np.maximum(starts, 0))
        return np.outer(*sizes).astype("int32")[None, :, :, None]


@register(layer_of(keras.layers.GlobalAveragePooling2D))
@keras.saving.register_keras_serializable("keras_qat")
class QGlobalAveragePooling2D(QuantizedLayer, keras.layers.GlobalAveragePooling2D):
    """Mean over height and width: one MEAN, with a range of its own.

    Args:
        *args: Arguments of `keras.layers.GlobalAveragePooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.GlobalAveragePooling2D`.
    """

    def build(self, input_shape):
        """Checks the layout and that the sizes are known."""
        check_spatial(self, input_shape)
        super().build(input_shape)

    def float_forward(self, inputs, training=None):
        """Averages in float."""
        del training
        return super(QuantizedLayer, self).call(inputs)

    def integer(self, *inputs: Centered, output: Grid):
        """Sums in int32, then scales as the reference MEAN does."""
        ((values, grid),), scheme = inputs, self._scheme()
        return _mean_centered(
            values,
            grid.scale,
            *output,
            count=int(np.prod(values.shape[1:3])),
            low=scheme.activation_low,
            high=scheme.activation_high,
            keepdims=self.keepdims,
        )

    def lower(self, builder, *inputs):
        """Adds one MEAN."""
        axes = builder.constant("axes", np.array([1, 2], "int32"))
        return builder.operator(
            "MEAN",
            (inputs[0], axes),
            version=2,
            options_type="ReducerOptions",
            options={"keepDims": bool(self.keepdims)},
        )


def check_spatial(layer, input_shape) -> None:
    """Raises if a layer's layout is not channels last or its height or width is unknown."""
    if layer.data_format != "channels_last":
        raise UnsupportedLayerError(
            "LiteRT's pooling operators take channels last.",
            layer=layer.name,
            received=f"data_format='{layer.data_format}'",
            expected="data_format='channels_last'",
            fix="Define the model with data_format='channels_last'.",
        )
    if None in input_shape[1:3]:
        raise UnsupportedLayerError(
            "The integer average depends on the size of its window, which is not known.",
            layer=layer.name,
            received=f"an input of shape {tuple(input_shape)}",
            expected="a fixed height and width",
            fix="Give the model's input a fixed shape.",
        )


@compiled
def _average_centered(means, counts, zero_point):
    # The mean times the count is the sum again: the sum is exact, the quotient off by half an ulp.
    sums = ops.cast(ops.round(means * ops.cast(counts, "float32")), "int32")
    return ops.cast(average(sums + counts * zero_point, counts) - zero_point, "float32")


@compiled
def _mean_centered(x, scale_in, scale_out, zero_point, *, count, low, high, keepdims):
    total = ops.sum(ops.cast(x, "int32"), axis=(1, 2), keepdims=keepdims)
    q = mean(total, count, scale_in, 0, scale_out, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")
