"""Segmentation with a small U-Net: both ways of upsampling, skip connections, uint8 pixels in.

Each pixel of an image gets a class. The network goes down with convolutions and max pooling. It
goes up with a `Conv2DTranspose` at the first level and an
`UpSampling2D(interpolation="bilinear")` at the second. `Concatenate` joins both paths at each
level. The default images are generated: discs, squares and triangles of any colour and size on a
noisy gradient.

    python examples/unet.py                   # generated shapes, offline
    python examples/unet.py --data own.npz    # your own images and masks

The second takes two arrays: `images`, uint8 of shape (n, height, width, channels), and `masks`,
integers of shape (n, height, width), with a class from 0 for each pixel. Height and width must be
multiples of four. One image in five is for the test.

The first prints, after 100 seconds of processor time:

    Float: 600 steps
    Quantized: 100 steps
    200 images that were not trained on, 460,800 pixels

    | model                   | mean IoU | pixels unlike Keras, int8, trained |
    |-------------------------|----------|------------------------------------|
    | Keras, float            |   0.8884 |                               1066 |
    | Keras, int8, calibrated |   0.8865 |                               1139 |
    | Keras, int8, trained    |   0.8896 |                                  0 |
    | .tflite                 |   0.8896 |                                  0 |


    The model trained in int8 had two more epochs than the one in float, so its IoU may be
    larger. The last column counts the pixels with another class than in the trained model: the
    file gives each pixel the same class as Keras.

    Operators: CONV_2D 11, MAX_POOL_2D 2, CONCATENATION 2, QUANTIZE 1, SHAPE 1, ADD 1,
    TRANSPOSE_CONV 1, RESIZE_BILINEAR 1, SOFTMAX 1
    Integers that differ: 0 of 12,865,544
    The file: build/unet/unet_int8.tflite, 82.0 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import textwrap
from collections import Counter

import keras
import numpy as np
from keras import layers
from report import console, load_arrays, positive, print_table, prove

import keras_qat

SIZE = 48  # height and width of the generated images in pixels

WHAT_TO_LOOK_AT = """
The model trained in int8 had two more epochs than the one in float, so its IoU may be
larger. The last column counts the pixels with another class than in the trained model: the
file gives each pixel the same class as Keras.
"""


def draw(random: np.random.Generator):
    """Returns an image, uint8 of shape (SIZE, SIZE, 3), and its mask."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    slopes = random.uniform(-60, 60, (2, 3))
    image = (
        random.uniform(60, 200, 3)
        + (rows[..., None] * slopes[0] + columns[..., None] * slopes[1]) / SIZE
    )
    mask = np.zeros((SIZE, SIZE), "uint8")
    for _ in range(random.integers(1, 4)):
        shape, radius = random.integers(1, 4), random.uniform(5, 11)
        y, x = random.uniform(radius, SIZE - radius, 2)
        down, right = rows - y, columns - x
        inside = {
            1: down**2 + right**2 < radius**2,
            2: np.maximum(abs(down), abs(right)) < 0.85 * radius,
            3: (abs(down) < radius) & (2 * abs(right) < down + radius),
        }[int(shape)]
        mask[inside] = shape
        image[inside] = random.uniform(0, 255, 3)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype("uint8"), mask


def generated_shapes(count: int = 1000):
    """Returns images and masks for training and test, and the number of classes."""
    random = np.random.default_rng(0)
    images, masks = map(np.stack, zip(*(draw(random) for _ in range(count)), strict=True))
    return split(images, masks), 4


def own_data(path: pathlib.Path):
    """Returns images, masks and the number of classes from a file."""
    images, masks = load_arrays(path, ("images", "masks"))
    is_pixels = images.ndim == 4 and images.dtype == np.uint8 and len(images) >= 5
    if not is_pixels or images.shape[1] % 4 or images.shape[2] % 4:
        sys.exit(
            f"{path}: 'images' must be 5 or more, uint8 of shape (n, height, width, channels), "
            f"height and width multiples of 4, and are {images.dtype} of shape {images.shape}."
        )
    is_whole = np.issubdtype(masks.dtype, np.integer)
    if masks.shape != images.shape[:3] or not is_whole or np.min(masks) < 0:
        sys.exit(
            f"{path}: 'masks' must be integers from 0 of shape {images.shape[:3]}, and are "
            f"{masks.dtype} of shape {masks.shape}."
        )
    return split(images, masks), int(np.max(masks)) + 1


def split(images: np.ndarray, masks: np.ndarray):
    """Splits the data. One image in five is for the test."""
    is_test = np.arange(len(images)) % 5 == 0
    return (images[~is_test], masks[~is_test]), (images[is_test], masks[is_test])


def convolutions(x, filters: int):
    """Makes two convolutions with batch normalization and ReLU."""
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    return x


def build_unet(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Makes two levels down and two levels up."""
    inputs = keras.Input(shape, name="pixels")
    x = layers.Rescaling(1 / 255)(inputs)  # folded, so the integers are the pixels
    upper = convolutions(x, 12)
    middle = convolutions(layers.MaxPooling2D()(upper), 24)
    x = convolutions(layers.MaxPooling2D()(middle), 48)
    x = layers.Conv2DTranspose(24, 3, strides=2, padding="same", activation="relu")(x)
    x = convolutions(layers.Concatenate()([x, middle]), 24)
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = convolutions(layers.Concatenate()([x, upper]), 12)
    outputs = layers.Conv2D(classes, 1, activation="softmax", name="class")(x)
    return keras.Model(inputs, outputs, name="unet")


def fit(kind: str, model: keras.Model, training, epochs: int, rate: float) -> None:
    """Trains a model, in float or quantized, with a learning rate that falls to zero."""
    steps = epochs * -(-len(training[1]) // 16)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    console.print(f"{kind}: {steps} steps")
    model.fit(*training, batch_size=16, epochs=epochs, verbose=0)


def segment(model, images: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel by a Keras model or a file: both have `predict`."""
    return np.argmax(model.predict(images, verbose=0), axis=-1)


def mean_iou(masks: np.ndarray, found: np.ndarray, classes: int) -> float:
    """Returns the mean over the classes of intersection over union."""
    metric = keras.metrics.MeanIoU(classes)
    metric.update_state(masks, found)
    return float(metric.result())


def main() -> None:
    """Trains in float, quantizes, trains, exports, segments, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="an .npz file: images, masks")
    parser.add_argument(
        "--epochs", type=positive, default=12, help="epochs in float; two more are quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/unet"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    (training, test), classes = own_data(args.data) if args.data else generated_shapes()
    images, masks = test

    model = build_unet(images.shape[1:], classes)
    fit("Float", model, training, args.epochs, 4e-3)
    found = {"Keras, float": segment(model, images)}
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:200], verbose=0)  # uint8, so the integers are the pixels
    found["Keras, int8, calibrated"] = segment(qat, images)
    fit("Quantized", qat, training, 2, 4e-4)
    in_keras = found["Keras, int8, trained"] = segment(qat, images)

    path = args.output / "unet_int8.tflite"
    keras_qat.export_litert(qat, path, inference_input_type="uint8")
    found[".tflite"] = segment(keras_qat.LiteRTModel(path), images)
    rows = [
        (name, mean_iou(masks, pixels, classes), int(np.sum(pixels != in_keras)))
        for name, pixels in found.items()
    ]
    title = f"{len(images)} images that were not trained on, {masks.size:,} pixels"
    print_table(title, ("model", "mean IoU", "pixels unlike Keras, int8, trained"), rows)
    console.print(WHAT_TO_LOOK_AT)
    counts = Counter(operator.name for operator in keras_qat.inspect_litert(path).operators)
    operators = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    console.print(textwrap.fill(f"Operators: {operators}", 92))
    prove(qat, path, images[:32])


if __name__ == "__main__":
    main()
