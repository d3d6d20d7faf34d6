"""Anomaly detection: an autoencoder of normal data in int8, and the quality of its scores.

A dense autoencoder, as in MLPerf Tiny, learns to compress the vibration spectra of a healthy
machine to eight numbers and to restore them. A spectrum that it cannot reconstruct is an anomaly.
The score is the mean squared error of the reconstruction. The area under the ROC curve (AUC)
measures how well the score separates faults from healthy spectra. The default machine is generated:
its speed and load vary, and its faults are a worn bearing and an imbalance. The training data has
no faults.

    python examples/anomaly_detection.py                     # a generated machine, offline
    python examples/anomaly_detection.py --data spectra.npz  # your own arrays

The second takes arrays named `train` and `test`, of shape (n, features), and `labels` of the test:
1 for an anomaly, 0 for a normal sample.

The first prints, after 25 seconds of processor time:

    Float: 1880 steps
    Quantized: 376 steps
    2000 spectra that were not trained on, 1000 of them anomalies

    | model                   |    AUC | mean error: normal | anomalies |
    |-------------------------|--------|--------------------|-----------|
    | Keras, float            | 0.9013 |             0.2269 |    0.5721 |
    | Keras, int8, calibrated | 0.9016 |             0.2271 |    0.5724 |
    | Keras, int8, trained    | 0.9013 |             0.2271 |    0.5723 |
    | .tflite                 | 0.9013 |             0.2271 |    0.5723 |


    A score is the difference of two vectors. They are nearly equal for a healthy machine, so
    the rounding to 8 bits is a part of the score: compare the mean errors. The AUC depends
    only on the order of the scores. The scores of Keras in int8 and of the file are equal.

    Scores that differ: 0 of 2000
    Integers that differ: 0 of 1,040,000
    The file: build/anomalies/anomalies_int8.tflite, 34.5 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import keras
import numpy as np
from keras import layers
from report import console, load_arrays, positive, print_table, prove
from sklearn.metrics import roc_auc_score

import keras_qat

BANDS = 128  # number of bands of the generated spectra

WHAT_TO_LOOK_AT = """
A score is the difference of two vectors. They are nearly equal for a healthy machine, so
the rounding to 8 bits is a part of the score: compare the mean errors. The AUC depends
only on the order of the scores. The scores of Keras in int8 and of the file are equal.
"""


def generate_spectra(count: int, fault: str | None, random: np.random.Generator) -> np.ndarray:
    """Returns spectra of a rotating machine in decibels, float32 of shape (count, BANDS)."""
    bands = np.arange(BANDS)

    def peak(place, height):
        return height * np.exp(-0.5 * ((bands - place) / 1.5) ** 2)

    speed = random.uniform(8, 14, (count, 1))  # the band of the first harmonic
    load = random.uniform(0.5, 1, (count, 1))
    power = 0.02 * np.exp(-bands / 60) * (1 + load)  # the noise of the flow
    for harmonic in range(1, 7):
        height = load / harmonic**1.5
        if fault == "imbalance" and harmonic == 1:
            height = height * random.uniform(1.2, 4, (count, 1))
        power = power + peak(harmonic * speed, height)
    if fault == "bearing":  # a resonance, modulated by the speed
        resonance = random.uniform(85, 110, (count, 1))
        strength = random.uniform(0.001, 0.01, (count, 1))
        for side in (-1, 0, 1):
            power = power + peak(resonance + side * speed, strength / (1 + abs(side)))
    power = power * random.gamma(100, 1 / 100, (count, BANDS))  # a mean of 100 periodograms
    return (10 * np.log10(power + 1e-6)).astype("float32")


def generated_machine():
    """Returns healthy spectra for training, spectra for the test, and labels: 1 for a fault."""
    random = np.random.default_rng(0)
    train = generate_spectra(6000, None, random)
    kinds = ((1000, None), (500, "bearing"), (500, "imbalance"))
    test = np.concatenate([generate_spectra(count, fault, random) for count, fault in kinds])
    return train, test, np.repeat([0, 1], 1000)


def own_data(path: pathlib.Path):
    """Returns spectra and labels from a file."""
    train, test, labels = load_arrays(path, ("train", "test", "labels"))
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        sys.exit(
            f"{path}: 'train' and 'test' must have the shape (n, features), with the same "
            f"features, and have {train.shape} and {test.shape}."
        )
    if labels.shape != test.shape[:1] or set(np.unique(labels)) != {0, 1}:
        sys.exit(f"{path}: 'labels' must be 0 or 1 for each row of 'test', and both must occur.")
    return train.astype("float32"), test.astype("float32"), labels


def build_autoencoder(features: int) -> keras.Model:
    """Makes three dense layers down to eight numbers and three up again."""
    x = inputs = keras.Input((features,), name="spectrum")
    for units in (64, 64, 8, 64, 64):
        x = layers.Dense(units, use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(features, name="reconstruction")(x), name="anomalies")


def fit(kind: str, model: keras.Model, x: np.ndarray, epochs: int, rate: float) -> None:
    """Trains a model to return its input, with a learning rate that falls to zero."""
    steps = epochs * -(-len(x) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "mean_squared_error")
    console.print(f"{kind}: {steps} steps")
    model.fit(x, x, batch_size=64, epochs=epochs, verbose=0)


def scores(model, x: np.ndarray) -> np.ndarray:
    """Returns the mean squared errors of the reconstructions of a Keras model or a file."""
    return np.mean(np.square(model.predict(x, verbose=0) - x), axis=1)


def rated(name: str, found: np.ndarray, labels: np.ndarray):
    """Returns a row of the table."""
    means = (float(np.mean(found[labels == label])) for label in (0, 1))
    return (name, float(roc_auc_score(labels, found)), *means)


def main() -> None:
    """Trains in float, quantizes, trains, exports, scores, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="an .npz file: train, test, labels")
    parser.add_argument(
        "--epochs", type=positive, default=20, help="epochs in float; four more are quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/anomalies"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    train, test, labels = own_data(args.data) if args.data else generated_machine()
    # As in preprocessing on the device, each feature gets the mean 0 and the variance 1.
    mean, deviation = train.mean(axis=0), train.std(axis=0) + np.float32(1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation

    model = build_autoencoder(train.shape[1])
    fit("Float", model, train, args.epochs, 2e-3)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, train[:1000], verbose=0)
    found = {"Keras, float": scores(model, test), "Keras, int8, calibrated": scores(qat, test)}
    fit("Quantized", qat, train, 4, 2e-4)
    found["Keras, int8, trained"] = scores(qat, test)

    path = args.output / "anomalies_int8.tflite"
    keras_qat.export_litert(qat, path)
    found[".tflite"] = scores(keras_qat.LiteRTModel(path), test)
    title = f"{len(test)} spectra that were not trained on, {np.sum(labels)} of them anomalies"
    rows = [rated(name, values, labels) for name, values in found.items()]
    print_table(title, ("model", "AUC", "mean error: normal", "anomalies"), rows)
    console.print(WHAT_TO_LOOK_AT)
    in_keras, in_file = found["Keras, int8, trained"], found[".tflite"]
    console.print(f"Scores that differ: {np.sum(in_keras != in_file)} of {len(test)}")
    prove(qat, path, test)


if __name__ == "__main__":
    main()
