"""Models and weights that other versions of Keras saved."""

from keras_qat.loading.models import load_model
from keras_qat.loading.weights.load_weights import load_weights

__all__ = ["load_model", "load_weights"]
