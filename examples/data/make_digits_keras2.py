"""Writes `digits_keras2.h5` with Keras 2, which the package `tf_keras` is today.

The network has parts of files of that time that Keras 3 refuses: depthwise convolutions with
`groups`, a normalization with `axis=[3]`, calls of TensorFlow's functions, Keras 2's hard sigmoid.

    python examples/data/make_digits_keras2.py
"""

from __future__ import annotations

import pathlib
import warnings

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tf_keras import layers

PATH = pathlib.Path(__file__).parent / "digits_keras2.h5"


def load_images():
    """Returns the digits as `old_keras2_model.py` loads them: 16x16 values from 0 to 1."""
    digits = load_digits()
    images = np.float32(digits.images / 16)[..., None].repeat(2, axis=1).repeat(2, axis=2)
    return train_test_split(images, digits.target, test_size=0.25, random_state=0)


def separable_block(x, filters: int, strides: int, is_gated: bool = True):
    """Makes a depthwise and a 1x1 convolution, and a gate as in squeeze and excitation."""
    x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(axis=[3], momentum=0.9)(x)
    x = layers.Activation("swish")(x)
    x = layers.Conv2D(filters, 1, use_bias=False)(x)
    x = layers.BatchNormalization(axis=[3], momentum=0.9)(x)
    if not is_gated:
        return x
    gate = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
    gate = layers.Conv2D(filters // 4, 1, activation="relu")(gate)
    gate = layers.Conv2D(filters, 1, activation="hard_sigmoid")(gate)
    return layers.Multiply()([x, gate])


def build_network() -> tf_keras.Model:
    """Makes a small MobileNet in the style of 2020."""
    image = layers.Input((16, 16, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
    x = layers.BatchNormalization(axis=[3], momentum=0.9)(x)
    x = layers.Activation("swish")(x)
    x = separable_block(x, 24, strides=2, is_gated=False)
    x = separable_block(x, 48, strides=2)
    y = separable_block(x, 48, strides=1)
    x = tf.nn.relu(x + y)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    digit = layers.Dense(10, activation="softmax", name="digit")(x)
    return tf_keras.Model(image, digit, name="digits_of_keras_2")


def main() -> None:
    """Trains the network, and writes the file."""
    tf_keras.utils.set_random_seed(0)
    x, x_test, y, y_test = load_images()
    model = build_network()
    optimizer = tf_keras.optimizers.legacy.SGD(
        0.1, decay=1e-3
    )  # without momentum, so that the file stays small
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=25, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of .h5
        model.save(PATH)
    print(f"Keras {tf_keras.__version__}: accuracy {accuracy:.4f}, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
