"""A `.tflite` file that is used like a Keras model."""

from keras_qat.deployed.model import LiteRTModel

__all__ = ["LiteRTModel"]
