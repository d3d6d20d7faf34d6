"""Counts false alarms and misses of `wide-activation-range` on networks trained on digits.

Each network is taken as it is trained, and with a third of the channels of one layer multiplied by
30 or 300, which the next layer divides again: the same function, with channels of different size.
A network is bad if int8 loses more than a point of accuracy on 597 images. scikit-learn has the
images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from common import parse, print_environment, print_table, save
from keras import layers

import keras_qat

FACTORS = (1, 30, 300)
# Of accuracy.
LOSS = 0.01


def _conv(x: Any, filters: int, name: str | None = None, **options: Any) -> Any:
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)


def _normalized(x: Any, name: str, activation: str = "relu") -> Any:
    x = _conv(x, 16, name, use_bias=False)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.Activation(activation)(x)


def _head(x: Any) -> Any:
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def _dense(x: Any) -> Any:
    x = layers.Dense(48, activation="relu", name="hidden")(layers.Flatten()(x))
    x = layers.Dense(32, activation="relu", name="next")(x)
    return layers.Dense(10)(x)


def _plain(x: Any) -> Any:
    x = _conv(x, 16, "hidden", activation="relu")
    return _head(_conv(layers.MaxPooling2D()(x), 32, "next", activation="relu"))


def _with_norms(x: Any) -> Any:
    x = _normalized(x, "hidden")
    return _head(_normalized(layers.MaxPooling2D()(x), "next"))


def _separable(x: Any) -> Any:
    x = _normalized(x, "hidden")
    x = _normalized(x, "next")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    return _head(layers.Conv2D(24, 1, activation="relu")(x))


def _residual(x: Any) -> Any:
    x = _normalized(x, "first")
    y = _normalized(_normalized(x, "hidden"), "next")
    return _head(layers.Add()([x, y]))


def _joined(x: Any) -> Any:
    x = _conv(x, 16, "hidden", activation="relu")
    y = _conv(x, 16, "next", activation="swish")
    z = layers.AveragePooling2D(3, strides=1, padding="same")(y)
    return _head(_conv(layers.Concatenate()([y, z]), 24, activation="relu"))


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "dense": _dense,
    "convolutions": _plain,
    "batch norms": _with_norms,
    "separable": _separable,
    "residual": _residual,
    "swish, joined": _joined,
}


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[order]


def trained(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1), name="image")
    model = keras.Model(image, NETWORKS[name](image))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(4e-3), loss)
    model.fit(x, y, epochs=12, batch_size=64, verbose=0)
    return model


def stretch(model: keras.Model, factor: float) -> None:
    """Multiplies a third of the channels of `hidden`, and divides them in `next`."""
    names = {layer.name for layer in model.layers}
    hidden = model.get_layer("hidden_norm" if "hidden_norm" in names else "hidden")
    weights = hidden.weights[:2]  # the kernel and the bias, or gamma and beta
    sizes = np.ones(weights[0].shape[-1], "float32")
    sizes[::3] = factor
    for weight in weights:
        weight.assign(weight * sizes)
    kernel = model.get_layer("next").kernel
    kernel.assign(kernel / sizes[:, None])


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    scores = keras.ops.convert_to_numpy(model(x, training=False))
    return float((scores.argmax(axis=1) == y).mean())


def measure(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    known, tests = x[:128], (x[1200:], y[1200:])
    report = keras_qat.check(model, calibration_data=known)
    found = [each for each in report.warnings if each.code == "wide-activation-range"]
    exact = accuracy(model, *tests)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, x[:256], verbose=0)
    int8 = accuracy(qat, *tests)
    return {
        "float": exact,
        "int8": int8,
        "is_bad": exact - int8 > LOSS,
        "tensors": len(report.layers),
        "found": [each.layer for each in found],
    }


def main() -> int:
    def arguments(parser) -> None:
        parser.add_argument("--seeds", type=int, default=3)

    args = parse(__doc__, arguments)
    print_environment()
    warnings.simplefilter("ignore")
    results: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        x, y = digits(seed)
        for name in NETWORKS:
            model, before = trained(name, x[:1200], y[:1200], seed), 1.0
            for factor in FACTORS:
                stretch(model, factor / before)
                before = factor
                row = {"network": name, "seed": seed, "factor": factor, **measure(model, x, y)}
                results.append(row)
                print(row, flush=True)
            keras.backend.clear_session()
    save(args.json, results)
    table = []
    for is_bad in (False, True):
        rows = [row for row in results if row["is_bad"] is is_bad]
        alarms = [row for row in rows if row["found"]]
        tensors = sum(len(row["found"]) for row in rows), sum(row["tensors"] for row in rows)
        kind = "loses more than a point" if is_bad else "loses at most a point"
        table.append([kind, len(rows), len(alarms), f"{tensors[0]} of {tensors[1]}"])
    print_table("Findings", ("int8", "networks", "with a finding", "tensors"), table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
