"""Models and weights that other versions of Keras saved."""

from keras_qat.legacy.loading import load_model
from keras_qat.legacy.weight_files import load_weights

__all__ = ["load_model", "load_weights"]
