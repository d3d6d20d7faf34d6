"""Random augmentation of images, which is applied at training only and makes no operator."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.graph import Matcher, Node, layer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import remade
from keras_qat.layers.core.registry import refuse, register
from keras_qat.layers.training_only.regularization import TrainingOnly
from keras_qat.scheme import Scheme

_AUGMENTATIONS = tuple(
    getattr(keras.layers, name)
    for name in (
        "RandomBrightness",
        "RandomColorJitter",
        "RandomContrast",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    )
    if hasattr(keras.layers, name)  # newer layers, which an older Keras lacks
)
_AUGMENTATION = Matcher(
    "keras.layers.RandomFlip, RandomRotation, RandomZoom and similar layers",
    lambda operation: type(operation) in _AUGMENTATIONS,
)


@register(_AUGMENTATION)
@keras.saving.register_keras_serializable("keras_qat")
class QAugmentation(TrainingOnly):
    """Random augmentation, kept for training. `RandomCrop` is excluded, since it always crops.

    Args:
        layer: The Keras layer, or its serialized form.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> layer = QAugmentation(keras.layers.RandomFlip("horizontal"))
    >>> layer(keras.ops.ones((1, 4, 4, 3)), training=False).shape
    TensorShape([1, 4, 4, 3])
    """

    def __init__(self, layer: Any, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        is_config = isinstance(layer, dict)
        self.layer = keras.saving.deserialize_keras_object(layer) if is_config else layer

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def float_forward(self, inputs, training=None):
        """Augments at training."""
        return self.layer(inputs, training=True) if training else inputs

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the Keras layer that augments."""
        return [remade(type(self.layer), self.layer)]

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, with a copy of the Keras layer."""
        copy = remade(type(node.head), node.head)
        return cls(copy, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}


refuse(
    layer_of(keras.layers.RandomCrop),
    reason="A random crop crops and resizes at inference too, by its own rule.",
    fix="Use `keras.layers.CenterCrop` or `keras.layers.Resizing`, or crop the training data.",
)
