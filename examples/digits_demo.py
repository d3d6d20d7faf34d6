"""From a trained float model to a verified uint8 file, on scikit-learn's bundled digits.

A small ResNet with the usual residual blocks (a standalone activation after the `Add`) is trained
in float and saved as an `.h5` file, the "pretrained model". The next steps are load, quantize,
train, export and verify. Run it with `make demo`, or

    python examples/digits_demo.py --output build/demo

Its last lines, on two cores of an x86-64 CPU:

    Result

  | model                          | accuracy |    elements that differ | ms per image |     bytes |
  |--------------------------------|----------|-------------------------|--------------|-----------|
  | Keras, float                   |   0.9822 |                         |              | 1,083,784 |
  | Keras, quantized, trained      |   0.9867 |                         |              |           |
  | LiteRT file, reference kernels |   0.9867 | 1,035,370 of 13,175,100 |         1.55 |    87,440 |
  | LiteRT file, default kernels   |   0.9867 |         0 of 13,175,100 |         0.15 |    87,440 |

    The quantized model in Keras and the file with the default kernels have equal accuracy, because
    none of their integers differ: the target of the model is "litert". The reference kernels round
    differently. The tables above show how the differences accumulate from layer to layer.

    The files:
      build/demo/digits_resnet.h5
      build/demo/digits_resnet_uint8.tflite
"""

from __future__ import annotations

import argparse
import pathlib
import time
import warnings

import keras
import numpy as np
from report import console, print_table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_qat
from keras_qat.litert import Runner

WHAT_TO_LOOK_AT = """
The quantized model in Keras and the file with the default kernels have equal accuracy, because
none of their integers differ: the target of the model is "litert". The reference kernels round
differently. The tables above show how the differences accumulate from layer to layer.
"""


def load_pixels():
    """Returns training and test digits as uint8 pixels of shape (n, 16, 16, 1), and labels."""
    digits = load_digits()
    # The bundled images have 17 grey levels.
    pixels = (digits.images * 255 / 16).astype("uint8")[..., None]
    pixels = pixels.repeat(2, axis=1).repeat(2, axis=2)
    return train_test_split(pixels, digits.target, test_size=0.25, random_state=0)


def conv_block(x, filters, strides=1, activation="relu", size=3):
    """Makes a convolution, a batch normalization and, on request, an activation."""
    x = keras.layers.Conv2D(filters, size, strides, "same")(x)
    x = keras.layers.BatchNormalization()(x)
    return x if activation is None else keras.layers.Activation(activation)(x)


def build_resnet():
    """Makes the ResNet of the TensorFlow 1.x notes: each `Add` has an activation after it."""
    inputs = keras.Input((16, 16, 1), name="pixels")
    x = conv_block(inputs, 16)
    for stack, filters in enumerate((16, 32, 64)):
        strides = 1 if stack == 0 else 2
        y = conv_block(x, filters, strides)
        y = conv_block(y, filters, activation=None)
        if stack > 0:
            x = keras.layers.Conv2D(filters, 1, strides, "same")(x)
        x = keras.layers.add([x, y])
        x = keras.layers.Activation("relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits_resnet")


def train_float(data, path):
    """Trains and saves the float model, from which the rest of the demo starts."""
    x_train, x_test, y_train, y_test = data
    model = build_resnet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=64, epochs=8, verbose=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of .h5, but old models are .h5 files
        model.save(path)


def quantize_and_train(model, data):
    """Quantizes, prints the rewrites, and trains for two epochs."""
    x_train, x_test, y_train, y_test = data
    qat = keras_qat.quantize_model(model, calibration_data=x_train[:256], target="litert")
    console.print("\n[bold]What was rewritten[/bold]")
    for rewrite in qat.rewrite_log:
        console.print(f"  {rewrite}")
    qat.compile(
        keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    qat.fit(x_train, y_train, batch_size=64, epochs=2, validation_data=(x_test, y_test), verbose=2)
    return qat


def run_file(path, kernels, images, labels):
    """Returns the accuracy of a file, and the milliseconds that one image takes."""
    runner = Runner(path, kernels=kernels)
    predictions = np.argmax(runner.run([images])[0], axis=-1)
    times = []
    for image in images[:50]:
        start = time.perf_counter()
        runner.run([image[None]])
        times.append(time.perf_counter() - start)
    return float(np.mean(predictions == labels)), 1000 * min(times)


def print_results(float_accuracy, qat_accuracy, report, files, data):
    """Prints the table of results and the paths of the files."""
    _, x_test, _, y_test = data
    h5, tflite = files
    rows = [
        ("Keras, float", float_accuracy, "", "", f"{h5.stat().st_size:,}"),
        ("Keras, quantized, trained", qat_accuracy, "", "", ""),
    ]
    for kernels in ("reference", "default"):
        accuracy, milliseconds = run_file(tflite, kernels, x_test, y_test)
        elements = sum(row.elements for row in report.layers[kernels].values())
        row = (
            f"LiteRT file, {kernels} kernels",
            accuracy,
            f"{report.mismatches(kernels):,} of {elements:,}",
            f"{milliseconds:.2f}",
            f"{tflite.stat().st_size:,}",
        )
        rows.append(row)
    headings = ("model", "accuracy", "elements that differ", "ms per image", "bytes")
    print_table("Result", headings, rows)
    console.print(WHAT_TO_LOOK_AT)
    console.print(
        "The files:", *(f"  {path.resolve()}" for path in files), sep="\n", soft_wrap=True
    )


def main():
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/demo"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    h5, tflite = output / "digits_resnet.h5", output / "digits_resnet_uint8.tflite"
    keras.utils.set_random_seed(0)
    data = load_pixels()

    console.print("[bold]1. A float model[/bold]")
    train_float(data, h5)
    model = keras.saving.load_model(h5, compile=False)
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    float_accuracy = model.evaluate(data[1], data[3], verbose=0)[1]

    console.print("\n[bold]2. Quantize and train[/bold]")
    qat = quantize_and_train(model, data)
    qat_accuracy = qat.evaluate(data[1], data[3], verbose=0)[1]

    console.print("\n[bold]3. Export and verify[/bold]")
    keras_qat.export_litert(
        qat, tflite, inference_input_type="uint8", inference_output_type="uint8"
    )
    report = keras_qat.verify(qat, tflite, data[1])
    print_results(float_accuracy, qat_accuracy, report, (h5, tflite), data)


if __name__ == "__main__":
    main()
