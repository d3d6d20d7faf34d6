"""CONV_2D and DEPTHWISE_CONV_2D over sequences, as images of one row."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.convolution import Convolution, DepthwiseConvolution


@register(layer_of(keras.layers.Conv1D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv1D(Convolution, keras.layers.Conv1D):
    """1D convolution: one CONV_2D between two RESHAPEs, after a PAD if it is causal.

    Args:
        *args: Arguments of `keras.layers.Conv1D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Conv1D`.

    Example:
    >>> layer = QConv1D(8, 3, padding="causal", batch_norm=True, activation="relu")
    >>> layer(np.ones((1, 5, 3), "float32")).shape
    TensorShape([1, 5, 8])
    """

    operators = ("CONV_2D", "RESHAPE", "PAD")

    def apply_kernel(self, x, kernel):
        """Convolves in float."""
        if self.padding == "causal":
            x = ops.pad(x, ((0, 0), (self._steps_before(), 0), (0, 0)))
        return ops.conv(
            x,
            kernel,
            strides=list(self.strides),
            padding="same" if self.padding == "same" else "valid",
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def add_operator(self, builder, x, **output):
        """Adds one CONV_2D. Zeros before a causal convolution are a PAD."""
        before = self._steps_before() if self.padding == "causal" else 0
        if before:
            pads = np.array([(0, 0), (0, 0), (before, 0), (0, 0)], "int32")
            batch, height, width, channels = x.shape
            x = builder.operator(
                "PAD",
                (x, builder.constant("paddings", pads)),
                part="padded",
                shape=(batch, height, width + before, channels),
                quantization=x.quantization,
            )
        return super().add_operator(builder, x, **output)

    def _steps_before(self) -> int:
        return self.dilation_rate[0] * (self.kernel_size[0] - 1)


@register(layer_of(keras.layers.DepthwiseConv1D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QDepthwiseConv1D(DepthwiseConvolution, keras.layers.DepthwiseConv1D):
    """Depthwise 1D convolution: one DEPTHWISE_CONV_2D between two RESHAPEs.

    Args:
        *args: Arguments of `keras.layers.DepthwiseConv1D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.DepthwiseConv1D`.

    Example:
    >>> layer = QDepthwiseConv1D(3, batch_norm=True, activation="relu")
    >>> layer(np.ones((1, 5, 4), "float32")).shape
    TensorShape([1, 3, 4])
    """

    operators = ("DEPTHWISE_CONV_2D", "RESHAPE")
