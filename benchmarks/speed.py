"""Measures quantizing, exporting, a training step and exact inference, against the float model.

Both sides of a ratio run in turns in this process. The ratio is that of the smallest CPU times
(`time.process_time`, all threads). Weights and data are random, which does not change the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import (
    Timing,
    interleave,
    parse,
    print_environment,
    print_table,
    save,
    verdict,
)
from keras import layers

import keras_qat

CLONE_GOAL, EXPORT_GOAL, INFERENCE_GOAL = 2.0, 3.0, 2.0
STEP_GOALS = {"no XLA": 0.95, "XLA": 1.05}
SECTIONS = ("quantize", "export", "step", "inference")
JIT_MODES = {"no XLA": False, "auto": "auto", "XLA": True}

Row = dict[str, Any]


def resnet8() -> keras.Model:
    """Makes three stacks of one residual block with 16, 32 and 64 filters, for 32x32x3 images."""

    def conv(x, filters, size, strides, activation):
        x = layers.Conv2D(filters, size, strides, "same")(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if activation else x

    inputs = keras.Input((32, 32, 3))
    x = conv(inputs, 16, 3, 1, True)
    for stack, filters in enumerate((16, 32, 64)):
        strides = 2 if stack else 1
        y = conv(x, filters, 3, strides, True)
        y = conv(y, filters, 3, 1, False)
        x = layers.Conv2D(filters, 1, strides, "same")(x) if stack else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="resnet8")


def application(name: str, size: int, classes: int = 1000) -> keras.Model:
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=classes)


def mixer() -> keras.Model:
    """Makes four blocks of a layer normalization and two dense layers, for 64 tokens."""
    inputs = x = keras.Input((64, 96))
    for _ in range(4):
        y = layers.Dense(192, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(96)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="mixer")


# A function that makes the network, the batch of a training step, and that of a prediction.
NETWORKS = {
    "ResNet-8": (resnet8, 128, 256),
    "MobileNetV2 96": (lambda: application("MobileNetV2", 96, 10), 16, 32),
    "EfficientNetB0 96": (lambda: application("EfficientNetB0", 96, 10), 16, None),
    "LayerNorm": (mixer, 64, None),
}


def row(what: str, timings: dict[str, Timing], goal: float) -> Row:
    """Returns the table row of timing `ours` against `base`."""
    ours, base = timings["ours"], timings["base"]
    ratio = min(ours.cpu) / min(base.cpu)
    wall_ratio = min(ours.wall) / min(base.wall)
    return {
        "what": what,
        **timings,
        "ratio": ratio,
        "wall_ratio": wall_ratio,
        "goal": goal,
        "calls": 1,
    }


def quantize_rows(args) -> list[Row]:
    rows = []
    for name in ("MobileNetV2", "ResNet50"):
        model = application(name, 224)
        calls = {
            "base": lambda model=model: keras.models.clone_model(model),
            "ours": lambda model=model: keras_qat.quantize_model(model),
        }
        timings = interleave(calls, args.rounds)
        rows.append(row(f"quantize_model / clone_model, {name} 224", timings, CLONE_GOAL))
    return rows


def export_rows(args) -> list[Row]:
    """Returns rows of seconds of `ours` instead of ratios."""
    qat = keras_qat.quantize_model(application("MobileNetV2", 224))
    keras_qat.calibrate(qat, np.random.default_rng(0).random((1, 224, 224, 3)), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        timings = interleave({"ours": lambda: keras_qat.export_litert(qat, path)}, args.rounds)
    return [
        {
            "what": "export_litert, MobileNetV2 224, seconds",
            **timings,
            "goal": EXPORT_GOAL,
            "calls": 1,
        }
    ]


def pair(
    source: keras.Model, images: np.ndarray, jit: bool | str, target: str
) -> dict[str, keras.Model]:
    """Returns the float model and the quantized model, compiled alike."""
    qat = keras_qat.quantize_model(source, target=target)
    keras_qat.calibrate(qat, images[:16], verbose=0)
    models = {"base": keras.models.clone_model(source), "ours": qat}
    for model in models.values():
        optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit)
    return models


def repeated(call: Callable[..., object], times: int, *arguments: object) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call(*arguments)

    return run


def model_rows(args, method: str, what: str, batches: dict, goals: dict) -> list[Row]:
    """Times a method of both models of each pair, in each mode of compilation."""
    rng, rows = np.random.default_rng(1), []
    for name, batch in batches.items():
        source = NETWORKS[name][0]()
        images = rng.random((batch, *source.input_shape[1:]), "float32")
        labels = rng.integers(0, 10, batch)
        data = (images, labels) if method == "train_on_batch" else (images,)
        for mode, goal in goals.items():
            calls = {
                key: repeated(getattr(model, method), args.repeats, *data)
                for key, model in pair(source, images, JIT_MODES[mode], args.target).items()
            }
            timings = interleave(calls, args.rounds)
            title = f"{what}, {name}, batch {batch}, {mode}"
            rows.append({**row(title, timings, goal), "calls": args.repeats})
            print(f"  {title}: {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def step_rows(args) -> list[Row]:
    batches = {name: NETWORKS[name][1] for name in args.networks}
    return model_rows(args, "train_on_batch", "QAT step / float step", batches, STEP_GOALS)


def inference_rows(args) -> list[Row]:
    batches = {name: NETWORKS[name][2] for name in args.networks if NETWORKS[name][2]}
    goals = dict.fromkeys(("auto", "XLA"), INFERENCE_GOAL)
    return model_rows(args, "predict_on_batch", "exact / float inference", batches, goals)


def show(rows: list[Row]) -> None:
    cells = []
    for entry in rows:
        times = [
            f"{1000 * min(entry[key].cpu) / entry['calls']:.0f}" if key in entry else ""
            for key in ("base", "ours")
        ]
        value = entry.get("ratio", min(entry["ours"].cpu))
        wall = entry.get("wall_ratio", min(entry["ours"].wall))
        goal = entry["goal"]
        numbers = (f"{value:.2f}", f"{wall:.2f}", goal, verdict(value, goal))
        cells.append((entry["what"], *times, *numbers))
    headings = ("", "base, CPU ms", "ours, CPU ms", "ratio or s", "on the wall", "goal <=", "")
    print_table("Speed (smallest of the rounds)", headings, cells)


def arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each side")
    parser.add_argument("--repeats", type=int, default=3, help="steps or predictions in a round")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--target", default="litert", help="the target of quantized models")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    keras.utils.set_random_seed(0)
    measure = {
        "quantize": quantize_rows,
        "export": export_rows,
        "step": step_rows,
        "inference": inference_rows,
    }
    rows: list[Row] = []
    for section in args.only:
        print(f"{section} ...", flush=True)
        rows += measure[section](args)
        keras.backend.clear_session()
    show(rows)
    save(args.json, rows)


if __name__ == "__main__":
    main()
