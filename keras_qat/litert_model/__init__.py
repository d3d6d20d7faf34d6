"""A `.tflite` file that is used like a Keras model."""

from keras_qat.litert_model.model import LiteRTModel

__all__ = ["LiteRTModel"]
