"""Transfer learning on a cloned MobileNetV2, and from there to a quantized file.

A MobileNetV2 that has learned one task is cloned: `keras_qat.clone_model` gives the layers of the
file, still in float, with the same weights. The frozen clone gets a new head, which learns another
task from a few images. Then the upper half is unfrozen and fine-tuned. Then the whole model is
quantized, calibrated and trained again, with the lower half still frozen.

    python examples/transfer_learning.py                   # scikit-learn's digits, offline
    python examples/transfer_learning.py --imagenet DIR    # weights of ImageNet, your images

Offline there are no weights of ImageNet. So the first command learns the digits 0 to 6, and
transfers to 7, 8 and 9, with five images each. For these small images the lower layers up to block
6 are enough. `DIR` has a folder of images for each class. Four fifths of them are for training.

The first prints, after less than two minutes on two idle cores:

    Digits: 1264 images, 20 epochs, 59 of 97 weights
    58 layers are 24 in the clone
    Head: 15 images, 10 epochs, 2 of 97 weights
    Upper half: 15 images, 10 epochs, 29 of 97 weights
    From scratch: 15 images, 20 epochs, 59 of 97 weights
    From scratch: 15 images, 60 epochs, 59 of 97 weights
    Quantized: 15 images, 10 epochs, 29 of 257 weights
    Accuracy on 518 images that were not trained on

    | model                                           | accuracy |
    |-------------------------------------------------|----------|
    | from scratch: Keras, float, as long             |   0.3514 |
    | from scratch: Keras, float, three times as long |   0.8938 |
    | transfer: Keras, float, new head                |   0.8224 |
    | transfer: Keras, float, fine-tuned              |   0.8900 |
    | transfer: Keras, int8, calibrated               |   0.8919 |
    | transfer: Keras, int8, trained                  |   0.8919 |
    | transfer: .tflite                               |   0.8919 |


    The first two lines are an equal network that was trained only on the few images: in as
    many steps as the transfer, and in three times as many. Compare them with the fourth line:
    on these simple digits the other task only saves steps. The number of epochs was chosen to
    show this. The next two lines are in integers, before and after training with quantization.
    Keras and the file are equal.

    Integers that differ: 0 of 14,181,888
    The file: build/transfer/transfer.tflite, 35.7 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import keras
import numpy as np
from keras import layers
from report import console, print_table, prove
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_qat

KNOWN = 7  # digits of the pretrained network
PER_CLASS = 5
BATCH = 8

WHAT_TO_LOOK_AT = """
The first two lines are an equal network that was trained only on the few images: in as
many steps as the transfer, and in three times as many. Compare them with the fourth line:
on these simple digits the other task only saves steps. The number of epochs was chosen to
show this. The next two lines are in integers, before and after training with quantization.
Keras and the file are equal.
"""


def build_base(size: int, weights: str | None, last: str) -> keras.Model:
    """Makes MobileNetV2 up to its layer `last`, and the mean of its output over the image."""
    shape = (size, size, 3)
    whole = keras.applications.MobileNetV2(shape, alpha=0.35, include_top=False, weights=weights)
    for layer in whole.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # Keras's 0.999 needs far more steps
    mean = layers.GlobalAveragePooling2D(name="mean")(whole.get_layer(last).output)
    return keras.Model(whole.input, mean, name="mobilenetv2")


def add_head(base: keras.Model, classes: int) -> keras.Model:
    """Makes a classifier for pixels from 0 to 255."""
    inputs = x = keras.Input(base.input_shape[1:], name="pixels")
    x = layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")(x)  # at training only
    x = layers.RandomRotation(0.05, fill_mode="nearest")(x)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)  # the range that MobileNetV2 was trained on
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="head")(base(x)))


def train(model: keras.Model, training, epochs: int, rate: float, stage: str) -> None:
    """Trains all layers that are not frozen, with a learning rate that ends at zero."""
    x, y = training
    trained, weights = len(model.trainable_weights), len(model.weights)
    console.print(f"{stage}: {len(y)} images, {epochs} epochs, {trained} of {weights} weights")
    rates = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(y) // BATCH))
    model.compile(keras.optimizers.Adam(rates), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def accuracy(model: keras.Model, test) -> float:
    """Returns the share of images that a Keras model classifies correctly."""
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.evaluate(*test, batch_size=128, verbose=0, return_dict=True)["accuracy"]


def pretrained_on_digits(epochs: int):
    """Returns a base that has learned the digits 0 to 6, and data of 7, 8 and 9."""
    digits = load_digits()
    # The bundled images have 17 grey levels and 8x8 pixels.
    images = np.float32(digits.images * 255 / 16)[..., None].repeat(3, axis=-1)
    pixels = np.array(keras.ops.image.resize(images, (32, 32))).round().astype("uint8")
    is_known = digits.target < KNOWN
    base = build_base(32, None, last="block_6_expand_relu")
    train(
        add_head(base, KNOWN), (pixels[is_known], digits.target[is_known]), epochs, 3e-3, "Digits"
    )
    rest, labels = pixels[~is_known], digits.target[~is_known] - KNOWN
    few = (10 - KNOWN) * PER_CLASS
    x, x_test, y, y_test = train_test_split(
        rest, labels, train_size=few, stratify=labels, random_state=0
    )
    return base, (x, y), (x_test, y_test)


def pretrained_on_imagenet(folder: pathlib.Path):
    """Returns the pretrained MobileNetV2, and the images of a folder for training and test."""
    try:
        base = build_base(96, "imagenet", last="out_relu")
    except Exception as error:  # the download can raise any error
        sys.exit(
            f"MobileNetV2 cannot be downloaded ({error}). Without --imagenet no data is needed."
        )
    try:
        images = keras.utils.image_dataset_from_directory(
            folder, image_size=(96, 96), batch_size=None, shuffle=False, verbose=False
        )
        pairs = [(np.array(image).round().astype("uint8"), int(label)) for image, label in images]
        pixels, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        x, x_test, y, y_test = train_test_split(
            pixels, labels, test_size=0.2, stratify=labels, random_state=0
        )
    except (OSError, ValueError) as error:
        sys.exit(f"{folder} has to have a folder with some images for each class: {error}")
    return base, (x, y), (x_test, y_test)


def transfer(base: keras.Model, training, test, epochs: int):
    """Trains a head on the frozen base, then the upper half. Returns the model and its scores."""
    classes = int(training[1].max()) + 1
    base.trainable = False  # batch normalizations of the base keep their statistics
    model = add_head(base, classes)
    train(model, training, epochs, 3e-2, "Head")
    rows = [("transfer: Keras, float, new head", accuracy(model, test))]
    base.trainable = True
    for layer in base.layers[: len(base.layers) // 2]:
        layer.trainable = False
    train(model, training, epochs, 1e-3, "Upper half")
    rows.append(("transfer: Keras, float, fine-tuned", accuracy(model, test)))
    return model, rows


def from_scratch(base: keras.Model, training, test, epochs: int):
    """Trains an equal network from initial weights. Returns the scores."""
    rows = []
    for times, name in ((1, "as long"), (3, "three times as long")):
        untrained = keras.models.clone_model(base)  # with initial weights
        for layer in untrained.layers:
            layer.trainable = True
        twin = add_head(untrained, int(training[1].max()) + 1)
        train(twin, training, times * epochs, 3e-3, "From scratch")
        rows.append((f"from scratch: Keras, float, {name}", accuracy(twin, test)))
    return rows


def main() -> None:
    """Transfers, quantizes, exports, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--imagenet", type=pathlib.Path, metavar="DIR", help="a folder of your images"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of each stage of the transfer")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/transfer"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    if args.imagenet:
        pretrained, training, test = pretrained_on_imagenet(args.imagenet)
    else:
        pretrained, training, test = pretrained_on_digits(2 * args.epochs)

    base = keras_qat.clone_model(pretrained)
    console.print(f"{len(pretrained.layers)} layers are {len(base.layers)} in the clone")
    model, rows = transfer(base, training, test, args.epochs)
    rows = [*from_scratch(base, training, test, 2 * args.epochs), *rows]

    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:500], verbose=0)
    rows.append(("transfer: Keras, int8, calibrated", accuracy(qat, test)))
    train(qat, training, args.epochs, 1e-4, "Quantized")
    rows.append(("transfer: Keras, int8, trained", accuracy(qat, test)))
    path = args.output / "transfer.tflite"
    keras_qat.export_litert(qat, path, inference_input_type="uint8")
    file = keras_qat.LiteRTModel(path)
    rows.append(("transfer: .tflite", file.evaluate(*test, verbose=0)["accuracy"]))
    title = f"Accuracy on {len(test[1])} images that were not trained on"
    print_table(title, ("model", "accuracy"), rows)
    console.print(WHAT_TO_LOOK_AT)
    prove(qat, path, test[0][:256])


if __name__ == "__main__":
    main()
