"""Images of several examples: scikit-learn's bundled digits, or MNIST."""

from __future__ import annotations

import sys

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load_pixels(is_mnist: bool):
    """Returns pixels, uint8 of shape (n, size, size, 1), and labels for training and test."""
    if is_mnist:
        try:
            (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
        except Exception as error:  # the download can raise any error
            sys.exit(f"MNIST cannot be downloaded ({error}). Without --mnist no data is needed.")
        return (x[..., None], y), (x_test[..., None], y_test)
    digits = load_digits()
    # The bundled images have 17 grey levels and 8x8 pixels.
    pixels = np.round(digits.images * 255 / 16).astype("uint8")[..., None]
    pixels = pixels.repeat(2, axis=1).repeat(2, axis=2)
    x, x_test, y, y_test = train_test_split(pixels, digits.target, test_size=0.2, random_state=0)
    return (x, y), (x_test, y_test)
