"""Keras callbacks for the training of quantized models."""

from keras_qat.callbacks.pruning import MagnitudePruning

__all__ = ["MagnitudePruning"]
