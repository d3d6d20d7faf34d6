"""Layers that are active at training only. They stay in the model, and make no operator."""

from __future__ import annotations

import keras

from keras_qat.graph import layer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.random_states import load_random_states, save_random_states
from keras_qat.layers.core.registry import register


class TrainingOnly(MovesValues):
    """Base class of layers that return their input at inference.

    Unlike Keras's layers they save the state of their random numbers, so that a resumed training
    drops the same elements as an uninterrupted training.
    """

    activation_bits = (8, 16)
    operators = ()
    makes_operator = False

    def float_forward(self, inputs, training=None):
        """Calls the Keras layer."""
        return super(QuantizedLayer, self).call(inputs, training=training)

    def lower(self, builder, *inputs):
        """Adds nothing."""
        return inputs[0]

    def save_own_variables(self, store):
        """Saves the state of the random numbers; there are no weights."""
        save_random_states(self, store)

    def load_own_variables(self, store):
        """Loads the state of the random numbers, if the file has it."""
        load_random_states(self, store)


@register(layer_of(keras.layers.Dropout))
@keras.saving.register_keras_serializable("keras_qat")
class QDropout(TrainingOnly, keras.layers.Dropout):
    """Dropout, kept for training."""


@register(layer_of(keras.layers.SpatialDropout1D))
@keras.saving.register_keras_serializable("keras_qat")
class QSpatialDropout1D(TrainingOnly, keras.layers.SpatialDropout1D):
    """Dropout of whole channels, kept for training."""


@register(layer_of(keras.layers.SpatialDropout2D))
@keras.saving.register_keras_serializable("keras_qat")
class QSpatialDropout2D(TrainingOnly, keras.layers.SpatialDropout2D):
    """Dropout of whole feature maps, kept for training."""


@register(layer_of(keras.layers.SpatialDropout3D))
@keras.saving.register_keras_serializable("keras_qat")
class QSpatialDropout3D(TrainingOnly, keras.layers.SpatialDropout3D):
    """Dropout of whole channels of volumes, kept for training."""


@register(layer_of(keras.layers.AlphaDropout))
@keras.saving.register_keras_serializable("keras_qat")
class QAlphaDropout(TrainingOnly, keras.layers.AlphaDropout):
    """Alpha dropout, kept for training."""


@register(layer_of(keras.layers.GaussianDropout))
@keras.saving.register_keras_serializable("keras_qat")
class QGaussianDropout(TrainingOnly, keras.layers.GaussianDropout):
    """Multiplicative noise, kept for training."""


@register(layer_of(keras.layers.GaussianNoise))
@keras.saving.register_keras_serializable("keras_qat")
class QGaussianNoise(TrainingOnly, keras.layers.GaussianNoise):
    """Additive noise, kept for training."""


@register(layer_of(keras.layers.ActivityRegularization))
@keras.saving.register_keras_serializable("keras_qat")
class QActivityRegularization(TrainingOnly, keras.layers.ActivityRegularization):
    """A penalty on the activations, kept for training."""

    def float_forward(self, inputs, training=None):
        """Returns the input; Keras adds the penalty."""
        del training
        return inputs
