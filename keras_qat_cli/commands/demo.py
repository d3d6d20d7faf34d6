"""Runs the other commands offline, on a small network for scikit-learn's digits."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from keras_qat_cli.arguments import count
from keras_qat_cli.console import Outcome, is_terminal, say
from keras_qat_cli.errors import UsageError

HELP = "run the other commands on digits, offline (needs the extra cli)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "-o",
        "--output",
        default="keras-qat-demo",
        metavar="FOLDER",
        help="folder for the files (default: keras-qat-demo)",
    )
    parser.add_argument(
        "--epochs", type=count, default=8, metavar="N", help="in float (default: 8)"
    )


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    digits = _load_digits()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    model, qat, tflite = (
        str(folder / f"digits{end}") for end in (".keras", "_qat.keras", ".tflite")
    )
    train, test = _write_digits(digits, folder)
    _train_float(model, train, options.epochs)
    steps = (
        ("check", model, "--data", train),
        ("quantize", model, "-o", qat, "--data", train, "--train-data", train, "--epochs", "2"),
        ("export", qat, "-o", tflite, "--input-type", "uint8"),
        ("verify", qat, tflite, "--data", test),
        ("compare", model, tflite, "--data", test),
    )
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        for outcome in list(outcomes.values())[-1:]:
            say(outcome.text)
        say(f"\n$ keras-qat {' '.join(step)}")
        outcomes[step[0]] = _run(step)
    codes = [outcome.code for outcome in outcomes.values()]
    data = {name: outcome.data for name, outcome in outcomes.items()}
    text = f"{outcomes['compare'].text}\nThe files are in {folder.resolve()}"
    return Outcome(text, data, max(codes))


def _run(step: tuple[str, ...]) -> Outcome:
    from keras_qat_cli.main import COMMANDS, parser

    options = parser().parse_args(step)
    return COMMANDS[options.command].run(options)


def _load_digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            "The demo takes its digits from scikit-learn, which is not installed.",
            fix="pip install 'keras-qat[cli]'",
        ) from error
    return load_digits()


def _write_digits(digits: Any, folder: pathlib.Path) -> tuple[str, str]:
    """Writes train and test digits, uint8 pixels of shape (n, 8, 8, 1), with their labels."""
    import numpy as np

    pixels = (digits.images * 255 / 16).astype("uint8")[..., None]  # the images have 17 grey levels
    order = np.random.default_rng(0).permutation(len(pixels))
    paths = str(folder / "train.npz"), str(folder / "test.npz")
    for path, part in zip(paths, (order[450:], order[:450]), strict=True):
        np.savez(path, x=pixels[part], y=digits.target[part])
    return paths


def _train_float(path: str, train: str, epochs: int) -> None:
    import keras
    import numpy as np
    from keras import layers

    say("A float model for 8x8 digits")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    with np.load(train) as data:
        verbose = 1 if is_terminal() else 2
        model.fit(data["x"], data["y"], batch_size=32, epochs=epochs, verbose=verbose)
    model.save(path)
