"""Measures the accuracy of the range rules over several seeds.

There are three experiments of a few seconds per seed: outliers in the calibration data, training
with small batches on heavy-tailed data, and features of different scale in one input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
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


EXPERIMENTS: dict[str, Callable[[int], Scores]] = {
    "outliers": outliers,
    "small_batches": small_batches,
    "scales": scales,
}


def main() -> int:
    def arguments(parser) -> None:
        parser.add_argument("--seeds", type=int, default=6)
        parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))

    args = parse(__doc__, arguments)
    print_environment()
    results: dict[str, dict[str, list[float]]] = {}
    warnings.simplefilter("ignore")  # the script measures outliers and ranges
    for name in args.only:
        runs = [EXPERIMENTS[name](seed) for seed in range(args.seeds)]
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
