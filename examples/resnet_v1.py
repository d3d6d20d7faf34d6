"""A ResNet v1 written for the device, and trained from scratch with quantization.

The network is the ResNet v1 of CIFAR-10 (He et al., 2015, https://arxiv.org/abs/1512.03385, section
4.2): three stacks of residual blocks, 6n + 2 layers. It is written with the drop-in layers of
`keras_qat.layers`: a convolution, its batch normalization and its ReLU are one `QConv2D`, an
addition and the ReLU after it are one `QAdd`. In float they are ordinary Keras layers. Quantized,
each of them is one operator of the file. The file takes uint8 pixels: the model scales them itself.

    python examples/resnet_v1.py              # 8 layers, scikit-learn's digits, offline
    python examples/resnet_v1.py --cifar10    # 20 layers, CIFAR-10, downloaded by Keras

The first prints, after half a minute on two idle cores:

    resnet8_v1, twin: 8 epochs in float
    resnet8_v1: 2 epochs in float, 6 quantized
    Accuracy on 450 images that were not trained on

    | model                               | accuracy |
    |-------------------------------------|----------|
    | Keras, float twin                   |   0.9956 |
    | Keras, quantized, stripped to float |   0.9956 |
    | Keras, int8                         |   0.9956 |
    | .tflite                             |   0.9956 |


    The first line is a twin that was trained in float only, with equal initial weights and as
    many epochs. The second line has the weights of the quantized model, without its rounding.
    From the third line on, everything is computed in integers, and Keras and the file are
    equal. The operators of the file are listed below: each QConv2D is one CONV_2D, and each
    QAdd is one ADD. No normalization, ReLU or scaling of pixels is left. QUANTIZE converts
    the uint8 input to int8.

    1 QUANTIZE, 9 CONV_2D, 3 ADD, 1 MEAN, 1 FULLY_CONNECTED, 1 SOFTMAX
    Integers that differ: 0 of 7,492,608
    The file: build/resnet/resnet8_v1.tflite, 87.3 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections import Counter

import keras
import numpy as np
from keras import layers
from report import console, print_table, prove
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_qat
from keras_qat.layers import QAdd, QConv2D, QDense

BATCH = 32
FIRST_FLOAT_EPOCHS = 2

WHAT_TO_LOOK_AT = """
The first line is a twin that was trained in float only, with equal initial weights and as
many epochs. The second line has the weights of the quantized model, without its rounding.
From the third line on, everything is computed in integers, and Keras and the file are
equal. The operators of the file are listed below: each QConv2D is one CONV_2D, and each
QAdd is one ADD. No normalization, ReLU or scaling of pixels is left. QUANTIZE converts
the uint8 input to int8.
"""


def load_pixels(is_cifar10: bool):
    """Returns uint8 pixels of shape (n, size, size, channels), and labels, in two splits."""
    if is_cifar10:
        try:
            (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
        except Exception as error:  # the download can raise any error
            sys.exit(
                f"CIFAR-10 cannot be downloaded ({error}). Without --cifar10 no data is needed."
            )
        return (x, y[:, 0]), (x_test, y_test[:, 0])
    digits = load_digits()
    # The bundled images have 17 grey levels and 8x8 pixels.
    pixels = np.round(digits.images * 255 / 16).astype("uint8")[..., None]
    pixels = pixels.repeat(2, axis=1).repeat(2, axis=2)
    x, x_test, y, y_test = train_test_split(pixels, digits.target, test_size=0.25, random_state=0)
    return (x, y), (x_test, y_test)


def convolve(x, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu"):
    """Makes convolution, batch normalization and activation: one layer, one operator."""
    return QConv2D(
        filters,
        size,
        strides,
        padding="same",
        batch_norm={"momentum": 0.9},  # training has only a few hundred steps
        activation=activation,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(1e-4),
    )(x)


def build_network(shape: tuple[int, ...], depth: int, is_cifar10: bool) -> keras.Model:
    """Makes a ResNet v1 with `depth` layers, 6n + 2, for pixels from 0 to 255."""
    inputs = x = keras.Input(shape, name="pixels")
    if is_cifar10:  # as in the paper, but digits are not mirrored
        x = layers.RandomFlip("horizontal")(x)
        x = layers.RandomTranslation(1 / 8, 1 / 8, fill_mode="constant")(x)
    x = layers.Rescaling(1 / 255)(x)
    x = convolve(x, 16)
    for stack, filters in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            is_smaller = stack > 0 and block == 0
            strides = 2 if is_smaller else 1
            y = convolve(x, filters, strides=strides)
            y = convolve(y, filters, activation=None)
            if is_smaller:
                x = convolve(x, filters, size=1, strides=strides, activation=None)
            x = QAdd(activation="relu")([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = QDense(10, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}_v1")


def train(model: keras.Model, training, epochs: int) -> None:
    """Trains with a learning rate that ends at zero."""
    x, y = training
    rates = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(y) // BATCH))
    model.compile(
        keras.optimizers.Adam(rates), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def accuracy(model: keras.Model, test) -> float:
    """Returns the share of images that a Keras model classifies correctly."""
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.evaluate(*test, batch_size=256, verbose=0, return_dict=True)["accuracy"]


def main() -> None:
    """Trains both, exports, evaluates, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", action="store_true", help="CIFAR-10 instead of the digits")
    parser.add_argument("--depth", type=int, help="6n + 2: 8, 14, 20, ...; default: 8 or 20")
    parser.add_argument("--epochs", type=int, help="default: 8, or 40 for CIFAR-10")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/resnet"))
    args = parser.parse_args()
    depth = args.depth or (20 if args.cifar10 else 8)
    epochs = args.epochs or (40 if args.cifar10 else 8)
    if depth < 8 or depth % 6 != 2:
        parser.error(f"--depth {depth} is not 6n + 2: 8, 14, 20, ...")
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test = load_pixels(args.cifar10)

    twin = build_network(training[0].shape[1:], depth, args.cifar10)
    in_float = min(FIRST_FLOAT_EPOCHS, epochs - 1)
    delay = in_float * -(-len(training[1]) // BATCH)
    qat = keras_qat.quantize_model(twin, quant_delay=delay)
    console.print(f"{twin.name}, twin: {epochs} epochs in float")
    train(twin, training, epochs)
    console.print(f"{twin.name}: {in_float} epochs in float, {epochs - in_float} quantized")
    train(qat, training, epochs)
    plain = keras_qat.strip_quantization(qat)
    rows = [
        ("Keras, float twin", accuracy(twin, test)),
        ("Keras, quantized, stripped to float", accuracy(plain, test)),
        ("Keras, int8", accuracy(qat, test)),
    ]
    path = args.output / f"resnet{depth}_v1.tflite"
    keras_qat.export_litert(qat, path, inference_input_type="uint8")
    file = keras_qat.LiteRTModel(path)
    rows.append((".tflite", file.evaluate(*test, verbose=0)["accuracy"]))
    print_table(
        f"Accuracy on {len(test[1])} images that were not trained on", ("model", "accuracy"), rows
    )
    console.print(WHAT_TO_LOOK_AT)
    operators = Counter(operator.name for operator in file.report.operators)
    console.print(", ".join(f"{count} {name}" for name, count in operators.items()))
    prove(qat, path, test[0][:256])


if __name__ == "__main__":
    main()
