"""A factor and an offset for each channel: a batch normalization without statistics."""

from __future__ import annotations

import string

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("keras_qat")
class ChannelAffine(keras.layers.BatchNormalization):
    """Multiplies each channel and adds to it: `x * gamma + beta` over the last axis.

    Rewrites fold the layer as a batch normalization with mean 0 and variance 1, at training too.

    Args:
        trainable_scale: Whether training changes the factors.
        trainable_shift: Whether training changes the offsets.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> layer = ChannelAffine()
    >>> layer.build((None, 2))
    >>> layer.set_values([2.0, 3.0], [0.0, 1.0])
    >>> [float(y) for y in layer(np.ones((1, 2), "float32"))[0]]
    [2.0, 4.0]
    """

    def __init__(self, *, trainable_scale: bool = False, trainable_shift: bool = False, **kwargs):
        super().__init__(**{**kwargs, "epsilon": 0.0})
        self.trainable_scale = trainable_scale
        self.trainable_shift = trainable_shift

    def build(self, input_shape):
        """Creates the variables; the statistics are constants."""
        self.sizes = tuple(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape))

        def vector(name, initializer, trainable=False, regularizer=None):
            return self.add_weight(
                name=name,
                shape=input_shape[-1:],
                initializer=initializer,
                trainable=trainable,
                regularizer=regularizer,
            )

        self.gamma = vector("gamma", "ones", self.trainable_scale, self.gamma_regularizer)
        self.beta = vector("beta", "zeros", self.trainable_shift, self.beta_regularizer)
        self.moving_mean = vector("moving_mean", "zeros")
        self.moving_variance = vector("moving_variance", "ones")

    def set_values(self, gamma, beta) -> None:
        """Sets factors and offsets, arrays of shape `(channels,)`."""
        self.gamma.assign(np.asarray(gamma, "float32"))
        self.beta.assign(np.asarray(beta, "float32"))

    def call(self, inputs, training=None, mask=None):
        """Multiplies and adds, at training and at inference."""
        del training, mask
        return inputs * self.gamma + self.beta

    def to_keras(self, name: str) -> keras.layers.Layer:
        """Returns the Keras layer that computes the same, and is trained if this layer is trained.

        Args:
            name: Name of the layer.
        """
        rank, channels = self.input_spec.ndim, self.gamma.shape[0]
        values = [ops.convert_to_numpy(value) for value in (self.gamma, self.beta)]
        if not self.trainable_variables:
            scale, offset = (value.tolist() for value in values)
            return keras.layers.Rescaling(scale, offset, name=name, dtype=self.dtype_policy)
        axes = string.ascii_lowercase[:rank]
        sizes = (*self.sizes[1:-1], channels)
        equation = f"{axes},{axes[-1]}->{axes}"
        layer = keras.layers.EinsumDense(
            equation,
            sizes,
            bias_axes=axes[-1],
            kernel_initializer="ones",
            kernel_regularizer=self.gamma_regularizer,
            bias_regularizer=self.beta_regularizer,
            name=name,
            dtype=self.dtype_policy,
        )
        layer.build((None, *sizes))
        layer.set_weights(values)
        return layer

    def get_config(self):
        """Returns the constructor's arguments."""
        flags = {"trainable_scale": self.trainable_scale, "trainable_shift": self.trainable_shift}
        return {**super().get_config(), **flags}
