"""Writes the two files of a network that `deployed.py` compares: ours and the converter's.

    python benchmarks/deployed_files.py NAME SIZE FOLDER

Both come from one Keras model with random weights, calibrated on the same images, int8 in and out.
The converter is `tf.lite.TFLiteConverter` with post-training quantization. An existing file of the
converter is kept, since the weights are equal in every run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import common  # noqa: F401 (finds the package, and quiets TensorFlow)
import keras
import numpy as np
from applications_exact import build, random_images
from keras import layers

import keras_qat

SEED, CALIBRATION = 11, 8


def yolo_tiny(size: int) -> keras.Model:
    """Makes YOLOv3-tiny (Redmon and Farhadi, 2018) after Darknet's yolov3-tiny.cfg."""

    def convolve(x, filters, kernel):
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
        return layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))

    image = x = keras.Input((size, size, 3))
    for filters in (16, 32, 64, 128):
        x = layers.MaxPooling2D(2)(convolve(x, filters, 3))
    route = convolve(x, 256, 3)
    x = convolve(layers.MaxPooling2D(2)(route), 512, 3)
    x = layers.MaxPooling2D(2, strides=1, padding="same")(x)
    branch = convolve(convolve(x, 1024, 3), 256, 1)
    coarse = layers.Conv2D(255, 1, name="coarse")(convolve(branch, 512, 3))
    x = layers.UpSampling2D(2)(convolve(branch, 128, 1))
    x = convolve(layers.Concatenate()([x, route]), 256, 3)
    return keras.Model(image, [coarse, layers.Conv2D(255, 1, name="fine")(x)], name="yolo_tiny")


def mlp_mixer(size: int) -> keras.Model:
    """Makes an MLP-Mixer (Tolstikhin et al., 2021): 8 blocks of 256 channels, patches of 8x8."""

    def mlp(x, hidden, width):
        x = layers.Activation("gelu")(layers.Dense(hidden)(x))
        return layers.Dense(width)(x)

    image = keras.Input((size, size, 3))
    tokens = (size // 8) ** 2
    x = layers.Reshape((tokens, 256))(layers.Conv2D(256, 8, strides=8)(image))
    for _ in range(8):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Permute((2, 1))(mlp(y, 128, tokens))])
        x = layers.Add()([x, mlp(layers.LayerNormalization()(x), 1024, 256)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(1000, activation="softmax")(x), name="mlp_mixer")


OWN: dict[str, Callable[[int], keras.Model]] = {"YOLO-tiny": yolo_tiny, "MLP-Mixer": mlp_mixer}


def network(name: str, size: int, rng: np.random.Generator) -> keras.Model:
    """Makes a network of `keras.applications`, or one of those above."""
    return OWN[name](size) if name in OWN else build(name, rng, size)


def converted(model: keras.Model, images: np.ndarray) -> bytes:
    """Returns the converter's file: int8 wherever the converter has an int8 operator."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    operators = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.target_spec.supported_ops = operators
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main(name: str, size: int, folder: Path) -> None:
    """Writes `ours.tflite` and `converter.tflite`."""
    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = network(name, size, rng)
    images = random_images(model, rng, CALIBRATION)
    folder.mkdir(parents=True, exist_ok=True)
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, images, verbose=0)
    keras_qat.export_litert(quantized, folder / "ours.tflite")
    path = folder / "converter.tflite"
    if not path.exists():
        path.write_bytes(converted(model, images))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
