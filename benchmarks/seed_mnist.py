"""A digit classifier whose batch norms stand *after* the ReLU: fully integer, and exact.

Such a batch norm cannot be folded into the convolution before it. The network is the usual one for
MNIST; the data are scikit-learn's bundled digits, enlarged to 16x16.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np
from common import (
    Stages,
    file_outputs,
    float_tensors,
    parse,
    print_environment,
    print_table,
    save,
)
from keras import layers
from sklearn.datasets import load_digits

import keras_qat

SEED = 3


def load_data():
    """Returns training and test images in [0, 1], each a multiple of 1 / 255, with labels."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")
    images = images.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    order = np.random.default_rng(SEED).permutation(len(images))
    x, y = (images[order] / 255).astype("float32"), digits.target[order].astype("int32")
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


def build_network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(10, activation="softmax"),
        ],
        name="mnist",
    )


def fit(model: keras.Model, data, epochs: int, rate: float) -> None:
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(*data, batch_size=32, epochs=epochs, verbose=0)


def accuracy(model: keras.Model, data) -> float:
    return model.evaluate(*data, batch_size=360, verbose=0)[1]


def run(args) -> dict:
    keras.utils.set_random_seed(SEED)
    stages, (training, test) = Stages(), load_data()
    network = build_network()
    stages.run("float training", fit, network, training, args.epochs, 1e-3)
    results = {"float": accuracy(network, test)}
    qat = stages.run("quantize", keras_qat.quantize_model, network, calibration_data=training[0])
    stages.run("QAT", fit, qat, training, args.qat_epochs, 1e-4)
    results["QAT in Keras"] = accuracy(qat, test)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mnist.tflite")
        types = dict.fromkeys(("inference_input_type", "inference_output_type"), "uint8")
        stages.run("export", keras_qat.export_litert, qat, path, **types)
        pixels = np.round(test[0] * 255).astype("uint8")
        for kernels in ("reference", "default"):
            predictions = np.argmax(file_outputs(path, kernels, pixels), axis=-1)
            results[f".tflite, {kernels} kernels"] = float(np.mean(predictions == test[1]))
        report = stages.run("verify", keras_qat.verify, qat, path, test[0], verbose=args.verbose)
        results["float tensors in the file"] = len(float_tensors(path))
    results |= {"mismatches, all layers": report.mismatches(), "verdict": report.verdict}
    kinds = Counter(type(layer).__name__ for layer in qat.layers)
    results["layers"] = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return results


def arguments(parser) -> None:
    parser.add_argument("--epochs", type=int, default=8, help="of float training")
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--verbose", type=int, default=0, help="1 for verify's table")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    results = run(args)
    rows = [(key, f"{v:.4f}" if isinstance(v, float) else v) for key, v in results.items()]
    print_table("MNIST network, batch norm after ReLU, on 16x16 digits", ("", "result"), rows)
    exact = not (results["mismatches, all layers"] or results["float tensors in the file"])
    print(f"fully integer and exact: {'reached' if exact else 'NOT reached'}")
    save(args.json, results)


if __name__ == "__main__":
    main()
