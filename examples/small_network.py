"""The network and the data of the examples that train on several devices."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from digits import load_pixels
from keras import layers

import keras_qat

SAMPLES = 1408  # a multiple of the batch, so that all devices always get samples
BATCH = 64


def data():
    """Returns float32 images of shape (n, 16, 16, 1) from 0 to 1, and labels."""
    (x, y), (x_test, y_test) = load_pixels(is_mnist=False)
    return (np.float32(x[:SAMPLES] / 255), y[:SAMPLES]), (np.float32(x_test / 255), y_test)


def float_network() -> keras.Model:
    """Makes a small convolutional classifier of digits, which returns logits."""
    keras.utils.set_random_seed(0)  # all processes start with the same weights
    # The other backends use the statistics of the global batch anyway.
    is_tensorflow = keras.backend.backend() == "tensorflow"
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.9, synchronized=is_tensorflow),
            layers.ReLU(),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def export(model: keras.Model, folder: pathlib.Path, rank: int = 0) -> pathlib.Path:
    """Writes the file of a process. All processes write the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"digits_{rank}.tflite"
    keras_qat.export_litert(model, path)
    return path


def accuracy_of(path: pathlib.Path) -> float:
    """Returns the accuracy of a file on images that were not trained on."""
    x, y = data()[1]
    return float(np.mean(keras_qat.LiteRTModel(path).predict(x, verbose=0).argmax(-1) == y))
