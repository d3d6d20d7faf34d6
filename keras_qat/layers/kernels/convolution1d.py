"""CONV_2D and DEPTHWISE_CONV_2D over sequences, as images of one row."""

from __future__ import annotations

import keras

from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.convolution import Convolution, DepthwiseConvolution
from keras_qat.layers.kernels.input_affine import INPUT_AFFINE
from keras_qat.layers.kernels.weighted import WeightedLayer


@register(maybe(INPUT_AFFINE), layer_of(keras.layers.Conv1D), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv1D(WeightedLayer, keras.layers.Conv1D):
    """1D convolution: one CONV_2D between two RESHAPEs, after a PAD if it is causal.

    Args:
        *args: Arguments of `keras.layers.Conv1D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Conv1D`.

    Example:
    >>> import numpy as np
    >>> layer = QConv1D(8, 3, padding="causal", batch_norm=True, activation="relu")
    >>> layer(np.ones((1, 5, 3), "float32")).shape
    TensorShape([1, 5, 8])
    """

    operators = ("CONV_2D", "RESHAPE", "PAD")
    kernel_operator = Convolution()


@register(
    maybe(INPUT_AFFINE), layer_of(keras.layers.DepthwiseConv1D), maybe(BATCH_NORM), maybe(FUSED)
)
@keras.saving.register_keras_serializable("keras_qat")
class QDepthwiseConv1D(WeightedLayer, keras.layers.DepthwiseConv1D):
    """Depthwise 1D convolution: one DEPTHWISE_CONV_2D between two RESHAPEs.

    Args:
        *args: Arguments of `keras.layers.DepthwiseConv1D`.
        batch_norm: Whether a batch normalization follows the convolution, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.DepthwiseConv1D`.

    Example:
    >>> import numpy as np
    >>> layer = QDepthwiseConv1D(3, batch_norm=True, activation="relu")
    >>> layer(np.ones((1, 5, 4), "float32")).shape
    TensorShape([1, 3, 4])
    """

    operators = ("DEPTHWISE_CONV_2D", "RESHAPE")
    kernel_operator = DepthwiseConvolution()
