"""MAX_POOL_2D and AVERAGE_POOL_2D over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.accumulate import in_bytes
from keras_qat.arithmetic.pooling import average
from keras_qat.backend import compiled
from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.sequences import check_sizes_known, lower_on_image, planar
from keras_qat.layers.moving.reshape import check_channels_last
from keras_qat.quantizers import Grid, Shared
from keras_qat.scheme import BYTE, Scheme


class WindowPooling(QuantizedLayer):
    """Base class of the pooling operators over windows of a sequence or an image.

    Attributes:
        operator_code: The LiteRT operator.
        sequence_class: The class for sequences of a class for images.
    """

    activation_bits = (8, 16)
    output_specification = Shared()
    operator_code: str
    sequence_class: Any = None

    def build(self, input_shape):
        """Checks the layout and that the windows are known."""
        check_pooled(self, input_shape)
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one pooling operator, between two RESHAPEs if the input is a sequence."""
        windows, strides = planar(self.pool_size), planar(self.strides)

        def add(x, **output):
            padding = self.padding.upper()
            return add_pooling(builder, self.operator_code, x, windows, strides, padding, **output)

        return lower_on_image(builder, inputs[0], add)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer. An operation has the arguments of a layer of its input's rank."""
        head = node.head
        if isinstance(head, keras.layers.Layer):
            return super().from_match(node, scheme)
        made = cls.sequence_class if len(node.shapes[0]) == 3 else cls
        names = ("pool_size", "strides", "padding", "data_format")
        arguments = {name: getattr(head, name) for name in names}
        return made(**arguments, name=node.name, scheme=scheme)


class AverageWindows(WindowPooling):
    """Base class of average poolings over windows, which share a range and round."""

    operator_code = "AVERAGE_POOL_2D"

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Sums integers, then divides rounding half away from zero."""
        values = inputs[0].values
        counts = ops.convert_to_tensor(self._window_sizes(values.shape))
        if self._scheme().activation_bits > BYTE:  # sums of float32 are exact for bytes
            high, low = (ops.cast(self._sums(part), "int32") for part in in_bytes(values))
            sums = high * 2**BYTE + low
        else:
            sums = ops.cast(self._sums(values), "int32")
        return average_centered(sums, counts, output.zero_point)

    def _sums(self, values):
        """Returns the sum of each window. Zeros, which add nothing, stand beyond a border.

        Keras's padding is not the same on all backends: PyTorch repeats the values at the border.
        """
        if self.padding == "same":
            pads = [self._paddings(axis, size) for axis, size in enumerate(values.shape[1:-1])]
            values = ops.pad(values, [(0, 0), *pads, (0, 0)])
        means = ops.average_pool(values, self.pool_size, self.strides, "valid", "channels_last")
        # The mean times the count is the sum again: the sum is exact, the quotient off by half an
        # ulp.
        return ops.round(means * np.float32(np.prod(self.pool_size)))

    def _paddings(self, axis: int, size: int) -> tuple[int, int]:
        """Returns how far windows reach beyond either border of an axis."""
        window, stride = self.pool_size[axis], self.strides[axis]
        missing = max((-(-size // stride) - 1) * stride + window - size, 0)
        return missing // 2, missing - missing // 2

    def _window_sizes(self, shape) -> np.ndarray:
        """Returns the number of values that each output averages, fewer at a padded border."""
        sizes = []
        arguments = zip(shape[1:-1], self.pool_size, self.strides, strict=True)
        for axis, (size, window, stride) in enumerate(arguments):
            if self.padding == "valid":
                sizes.append(np.full((size - window) // stride + 1, window))
                continue
            count = -(-size // stride)
            starts = np.arange(count) * stride - self._paddings(axis, size)[0]
            sizes.append(np.minimum(starts + window, size) - np.maximum(starts, 0))
        return window_counts(sizes)


@register(layer_of(keras.layers.MaxPooling1D))
@keras.saving.register_keras_serializable("keras_qat")
class QMaxPooling1D(WindowPooling, MovesValues, keras.layers.MaxPooling1D):
    """Max pooling of a sequence: one MAX_POOL_2D between two RESHAPEs, with one range for all.

    Args:
        *args: Arguments of `keras.layers.MaxPooling1D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.MaxPooling1D`.
    """

    operators = ("MAX_POOL_2D", "RESHAPE")
    operator_code = "MAX_POOL_2D"


@register(any_of(layer_of(keras.layers.MaxPooling2D), operation_named("MaxPool")))
@keras.saving.register_keras_serializable("keras_qat")
class QMaxPooling2D(WindowPooling, MovesValues, keras.layers.MaxPooling2D):
    """Max pooling: one MAX_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.MaxPooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.MaxPooling2D`.
    """

    operators = ("MAX_POOL_2D",)
    operator_code = "MAX_POOL_2D"
    sequence_class = QMaxPooling1D


@register(layer_of(keras.layers.AveragePooling1D))
@keras.saving.register_keras_serializable("keras_qat")
class QAveragePooling1D(AverageWindows, keras.layers.AveragePooling1D):
    """Average pooling of a sequence: AVERAGE_POOL_2D between two RESHAPEs, with one range for all.

    Args:
        *args: Arguments of `keras.layers.AveragePooling1D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.AveragePooling1D`.
    """

    operators = ("AVERAGE_POOL_2D", "RESHAPE")


@register(any_of(layer_of(keras.layers.AveragePooling2D), operation_named("AveragePool")))
@keras.saving.register_keras_serializable("keras_qat")
class QAveragePooling2D(AverageWindows, keras.layers.AveragePooling2D):
    """Average pooling: one AVERAGE_POOL_2D, with the range of its input.

    Args:
        *args: Arguments of `keras.layers.AveragePooling2D`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.AveragePooling2D`.
    """

    operators = ("AVERAGE_POOL_2D",)
    sequence_class = QAveragePooling1D


def check_pooled(layer, input_shape) -> None:
    """Raises if a layer's layout is not channels last or a size is unknown."""
    check_channels_last(layer.name, layer.data_format)
    why = "The integer pooling depends on the size of its windows, which is not known."
    check_sizes_known(layer.name, input_shape, why)


def add_pooling(
    builder,
    code: str,
    x,
    windows: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: str = "VALID",
    **output,
):
    """Adds one pooling operator to an image.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        code: `"MAX_POOL_2D"` or `"AVERAGE_POOL_2D"`.
        x: LiteRT tensor of rank 4.
        windows: Height and width of a window.
        strides: Distances between windows.
        padding: `"VALID"` or `"SAME"`.
        **output: Arguments of the builder about the output.

    Returns:
        The LiteRT tensor of the output.
    """
    return builder.operator(
        code,
        (x,),
        options={
            "padding": padding,
            "strideH": strides[0],
            "strideW": strides[1],
            "filterHeight": windows[0],
            "filterWidth": windows[1],
            "fusedActivationFunction": "NONE",
        },
        **output,
    )


def window_counts(sizes: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the number of values in each window.

    Args:
        sizes: The sizes of the windows along each axis between the batch and the channels.

    Returns:
        int32 array that broadcasts with the pooled tensor.

    Example:
    >>> window_counts([np.array([1, 2]), np.array([3, 4])])[0, :, :, 0].tolist()
    [[3, 4], [6, 8]]
    """
    counts = np.ones((), "int32")
    for size in sizes:
        counts = counts[..., None] * size
    return counts.astype("int32")[None, ..., None]


@compiled
def average_centered(sums, counts, zero_point):
    """Divides sums of centered integers by their counts, as AVERAGE_POOL_2D does.

    Args:
        sums: int32 tensor.
        counts: int32 tensor, the numbers of values.
        zero_point: int32 scalar.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    return ops.cast(average(sums + counts * zero_point, counts) - zero_point, "float32")
