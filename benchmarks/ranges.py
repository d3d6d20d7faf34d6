"""Measures the accuracy of the range rules over several seeds.

Each experiment takes a few seconds per seed. `digits` needs scikit-learn, and `resnet8` needs
`--data` and `--model`, as `cifar10_resnet8.py` does.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import parse, print_environment, print_table, save

Scores = dict[str, float]


def outliers(seed: int) -> Scores:
    """Returns the accuracy after calibration on 500 samples. One of them is 100 times as large."""
    import keras

    import keras_qat

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4000, 32)).astype("float32")
    y = (x @ rng.normal(size=(32, 10)) + 2 * rng.normal(size=(4000, 10))).argmax(axis=1)
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(64, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((32,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(x[:3000], y[:3000], epochs=5, verbose=0)

    def accuracy(each: Any) -> float:
        predicted = each.predict(x[3000:], verbose=0).argmax(axis=1)
        return float((predicted == y[3000:]).mean())

    def calibrated(data: np.ndarray, rule: str) -> float:
        qat = keras_qat.quantize_model(model)
        keras_qat.calibrate(qat, data, range_rule=rule, verbose=0)
        return accuracy(qat)

    clean, spoiled = x[:500], x[:500].copy()
    spoiled[7] *= 100
    return {
        "float": accuracy(model),
        "clean, minmax": calibrated(clean, "minmax"),
        "clean, robust": calibrated(clean, "robust"),
        "one outlier, minmax": calibrated(spoiled, "minmax"),
        "one outlier, robust": calibrated(spoiled, "robust"),
    }


def small_batches(seed: int) -> Scores:
    """Returns the normalized error of a regression on heavy-tailed data after an epoch."""
    import keras

    import keras_qat

    def data(number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(number)
        scale = np.exp(rng.normal(0, 0.8, 4000))
        x = (rng.normal(size=(4000, 32)) * scale[:, None]).astype("float32")
        return x, np.abs(x).mean(axis=1, keepdims=True)

    (x, y), (tests, wanted) = data(10 + seed), data(100)
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(units, activation="relu") for units in (32, 16)]
    model = keras.Sequential([keras.Input((32,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(2e-3), "mse")
    model.fit(x, y, epochs=8, verbose=0)

    def error(each: Any) -> float:
        squares = (each.predict(tests, verbose=0) - wanted) ** 2
        return float(np.sqrt(squares.mean()) / wanted.std())

    def trained(batch_size: int, rule: str | None) -> float:
        qat = keras_qat.quantize_model(model)
        if rule is not None:
            keras_qat.calibrate(qat, x, range_rule=rule, verbose=0)
        if batch_size:
            qat.compile(keras.optimizers.Adam(2e-4), "mse")
            qat.fit(x, y, batch_size=batch_size, verbose=0)
        return error(qat)

    return {
        "float": error(model),
        "calibrated only": trained(0, "robust"),
        "batch 8": trained(8, "robust"),
        "batch 2": trained(2, "robust"),
        "batch 2, moving_average": trained(2, "moving_average"),
        "batch 2, not calibrated": trained(2, None),
    }


def scales(seed: int) -> Scores:
    """Returns the accuracy with features of deviations 0.5 to 300, and 1 for a finding."""
    import keras

    import keras_qat

    rng = np.random.default_rng(seed)
    z = rng.normal(size=(1500, 4))
    x = (z * [0.5, 5, 50, 300]).astype("float32")
    y = (z[:, 0] > 0) * 2 + (z[:, 1] > 0)
    keras.utils.set_random_seed(seed)
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(x)
    head = keras.layers.Dense(4, activation="softmax")
    dense = keras.layers.Dense(32, activation="relu")
    model = keras.Sequential([keras.Input((4,)), norm, dense, head])
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=8, batch_size=64, verbose=0)

    def accuracy(each: Any) -> float:
        return float((each.predict(x, verbose=0).argmax(axis=1) == y).mean())

    def quantized(overrides: Any) -> Any:
        return keras_qat.quantize_model(model, calibration_data=x, overrides=overrides)

    found = keras_qat.check(model, calibration_data=x).findings
    return {
        "float": accuracy(model),
        "int8": accuracy(quantized(None)),
        'int8, overrides={"norm": None}': accuracy(quantized({"norm": None})),
        "wide-activation-range found": float(any(f.code == "wide-activation-range" for f in found)),
    }


def inside(seed: int) -> Scores:
    """Accuracy after calibration where one sample of 500 is large inside the model only."""
    import keras

    import keras_qat

    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(4000, 32)).astype("float32")
    y = (x @ rng.normal(size=(32, 10)) + rng.normal(size=(4000, 10))).argmax(axis=1)
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((32,)), hidden, keras.layers.Dense(10, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(x[:3000], y[:3000], epochs=5, verbose=0)
    # One unit is active only where all signs agree with a pattern.
    signs = rng.choice([-1.0, 1.0], 32)
    kernel, bias = (np.array(weight) for weight in hidden.get_weights())
    kernel[:, 0], bias[0] = 40 * signs, -40 * 24.0
    hidden.set_weights([kernel, bias])

    def accuracy(each: Any) -> float:
        predicted = each.predict(x[3000:], verbose=0).argmax(axis=1)
        return float((predicted == y[3000:]).mean())

    spoiled = x[:500].copy()
    spoiled[7] = signs
    scores = {"float": accuracy(model)}
    for name, data, rule in (
        ("no such sample, robust", x[:500], "robust"),
        ("one such sample, minmax", spoiled, "minmax"),
        ("one such sample, robust", spoiled, "robust"),
        ("one such sample, percentile", spoiled, "percentile"),
    ):
        qat = keras_qat.quantize_model(model)
        keras_qat.calibrate(qat, data, range_rule=rule, verbose=0)
        scores[name] = accuracy(qat)
        found = [each.code for each in keras_qat.check(qat).findings]
        scores[f"{name}: findings"] = float(found.count("wide-activation-range"))
    return scores


def first_batch(seed: int) -> Scores:
    """Normalized error after training without calibration, with and without a batch of zeros."""
    import keras

    import keras_qat

    def error(is_spoiled: bool) -> float:
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 0.2, (640, 16)).astype("float32")
        if is_spoiled:
            x[:32] = 0
        y = x.sum(axis=1, keepdims=True)
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1)])
        model.layers[0].set_weights([np.ones((16, 1)), np.zeros(1)])
        qat = keras_qat.quantize_model(model)
        qat.compile(keras.optimizers.SGD(1e-3), "mse")
        qat.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
        return float(np.std(qat.predict(x, verbose=0) - y) / np.std(y))

    return {"usual first batch": error(False), "first batch of zeros": error(True)}


def infinity(seed: int) -> Scores:
    """Normalized error after a batch with an infinite value, whose step is skipped."""
    import keras

    import keras_qat

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(640, 8)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    bad = x[:32].copy()
    bad[0, 0] = np.inf

    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(8, activation="relu")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(1)])

    def error(each: Any, first: np.ndarray | None) -> float:
        each.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-2)), "mse")
        if first is not None:
            each.fit(first, y[:32], shuffle=False, verbose=0)
        each.fit(x, y, epochs=4, shuffle=False, verbose=0)
        return float(np.std(np.asarray(each(x)) - y) / np.std(y))

    error(model, None)
    qat = keras_qat.quantize_model(model, calibration_data=x)
    return {"int8": error(qat, bad), "float": error(model, bad)}


# With "moving_average" calibration is that of "robust"; only training differs.
CALIBRATED = ("minmax", "robust", "percentile")
TRAINED = ("robust", "moving_average")


def digits(seed: int) -> Scores:
    """Accuracy on handwritten digits, calibrated by each rule, and after an epoch of training."""
    import keras
    from sklearn.datasets import load_digits

    import keras_qat

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    x = images[order].reshape(-1, 8, 8, 1).astype("float32") / 16
    y = labels[order]
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )

    def train(each: Any, rate: float, epochs: int) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        each.compile(keras.optimizers.Adam(rate), loss)
        each.fit(x[:1200], y[:1200], epochs=epochs, verbose=0)

    train(model, 5e-3, 12)
    scores = {"float": share_right(model, x[1200:], y[1200:])}
    for rule in dict.fromkeys((*CALIBRATED, *TRAINED)):
        qat = keras_qat.quantize_model(model)
        keras_qat.calibrate(qat, x[:200], range_rule=rule, verbose=0)
        if rule in CALIBRATED:
            scores[f"{rule}, calibrated"] = share_right(qat, x[1200:], y[1200:])
        if rule in TRAINED:
            train(qat, 5e-4, 1)
            scores[f"{rule}, trained"] = share_right(qat, x[1200:], y[1200:])
    return scores


def share_right(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The accuracy of a model. It is not compiled, which would take longer than it computes."""
    parts = [x[first : first + 250] for first in range(0, len(x), 250)]
    found = [np.argmax(np.asarray(model(part, training=False)), axis=1) for part in parts]
    return float((np.concatenate(found) == y).mean())


def resnet8(seed: int, data: Path, file: Path) -> Scores:
    """Accuracy of ResNet-8 on 1,000 images, calibrated by each rule on 200 others."""
    import keras_qat

    images, tests, labels, model = cifar10(data, file)
    chosen = np.random.default_rng(seed).choice(len(images), 200, replace=False)
    scores = {"float": share_right(model, tests, labels)}
    for rule in CALIBRATED:
        qat = keras_qat.quantize_model(model)
        keras_qat.calibrate(qat, images[chosen], range_rule=rule, verbose=0)
        scores[rule] = share_right(qat, tests, labels)
    return scores


@functools.cache
def cifar10(data: Path, file: Path) -> tuple[Any, ...]:
    """Training images, 1,000 images to test with, their labels, and the model."""
    from cifar10_resnet8 import load_images

    import keras_qat

    (images, _), (tests, labels) = load_images(data, 2000)
    floats = images.astype("float32"), tests[:1000].astype("float32")
    return *floats, labels[:1000], keras_qat.load_model(file)


EXPERIMENTS: dict[str, Callable[[int], Scores]] = {
    "outliers": outliers,
    "small_batches": small_batches,
    "scales": scales,
    "inside": inside,
    "first_batch": first_batch,
    "infinity": infinity,
}
# These need a package, or files.
MORE: dict[str, Callable[..., Scores]] = {"digits": digits, "resnet8": resnet8}


def main() -> int:
    def arguments(parser) -> None:
        parser.add_argument("--seeds", type=int, default=6)
        names = [*EXPERIMENTS, *MORE]
        parser.add_argument("--only", nargs="+", choices=names, default=list(EXPERIMENTS))
        parser.add_argument("--data", type=Path, help="folder of the CIFAR-10 file, for resnet8")
        parser.add_argument("--model", type=Path, help="the file of ResNet-8, for resnet8")

    args = parse(__doc__, arguments)
    print_environment()
    results: dict[str, dict[str, list[float]]] = {}
    warnings.simplefilter("ignore")  # the script measures outliers and ranges
    for name in args.only:
        files = (args.data, args.model) if name == "resnet8" else ()
        runs = [{**EXPERIMENTS, **MORE}[name](seed, *files) for seed in range(args.seeds)]
        results[name] = {key: [run[key] for run in runs] for key in runs[0]}
        rows = [
            [key, f"{np.mean(values):.3f}", " ".join(f"{value:.3f}" for value in values)]
            for key, values in results[name].items()
        ]
        print_table(name, ("", "mean", "each seed"), rows)
        save(args.json, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
