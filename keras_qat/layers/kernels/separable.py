"""Separable convolutions as blocks. They are two operators, and each becomes two layers."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.layers.kernels.block import Block


class SeparableConvolution(Block):
    """Base class of separable convolutions over sequences and images."""

    def float_forward(self, inputs, training=None):
        """Convolves in float, then applies batch normalization and activation."""
        y = ops.separable_conv(
            inputs,
            self.depthwise_kernel,
            self.pointwise_kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self.finish(y, training)


@keras.saving.register_keras_serializable("keras_qat")
class QSeparableConv2D(SeparableConvolution, keras.layers.SeparableConv2D):
    """Separable convolution with batch normalization and activation, for a model's definition.

    The block computes in float. A rewrite replaces it by a depthwise and a pointwise convolution.

    Args:
        *args: Arguments of `keras.layers.SeparableConv2D`.
        batch_norm: Whether a batch normalization follows, or its arguments.
        **kwargs: Keyword arguments of `keras.layers.SeparableConv2D` and of `Block`.

    Example:
    >>> layer = QSeparableConv2D(8, 3, batch_norm=True, activation="relu")
    >>> layer(ops.ones((1, 5, 5, 4))).shape
    TensorShape([1, 3, 3, 8])
    """


@keras.saving.register_keras_serializable("keras_qat")
class QSeparableConv1D(SeparableConvolution, keras.layers.SeparableConv1D):
    """Separable 1D convolution with batch normalization and activation, for a model's definition.

    Args:
        *args: Arguments of `keras.layers.SeparableConv1D`.
        batch_norm: Whether a batch normalization follows, or its arguments.
        **kwargs: Keyword arguments of `keras.layers.SeparableConv1D` and of `Block`.

    Example:
    >>> layer = QSeparableConv1D(8, 3, batch_norm=True, activation="relu")
    >>> layer(ops.ones((1, 5, 4))).shape
    TensorShape([1, 3, 8])
    """
