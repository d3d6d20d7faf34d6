"""Measures start-up, memory, and how costs grow with a network, against the float model.

Each figure comes from a new process, as CPU time of all threads.

- Start-up: the first `fit` of a step and the first `predict`, float and quantized.
- Memory: the peak of the process after three steps of training, minus its memory with the imports.
- Growth: `quantize_model` with calibration on 8 samples, of networks that become deeper and wider.
  The exponent is the slope of a line through the logarithms of parameters and of costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from common import parse, peak_rss_mib, print_environment, print_table, save, verdict

START_GOAL, MEMORY_GOAL, QUANTIZE_GOAL, EXPONENT_GOAL = 1.5, 1.25, 3.0, 1.1
# The blocks and the channels of networks whose costs are fitted.
SIZES = ((2, 72), (4, 160), (8, 360), (16, 800))


def network(blocks: int, channels: int) -> Any:
    """Makes convolutions of 3x3 with batch normalizations, for images of 8x8."""
    import keras
    from keras import layers

    inputs = x = keras.Input((8, 8, 3))
    for _ in range(blocks):
        x = layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same")(x))
        x = layers.ReLU()(x)
    x = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def made(kind: str, name: str) -> tuple[Any, np.ndarray]:
    """Returns a compiled model of `speed.py`, float or quantized, and a batch."""
    from speed import NETWORKS

    import keras_qat

    make, batch, _ = NETWORKS[name]
    model = make()
    x = np.random.default_rng(0).random((batch, *model.input_shape[1:]), "float32")
    if kind == "ours":
        model = keras_qat.quantize_model(model, calibration_data=x[:16])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, x


def child_start(kind: str, name: str) -> dict[str, float]:
    model, x = made(kind, name)
    labels, found = np.arange(len(x)) % 10, {}
    for key, call in (
        ("fit", lambda: model.fit(x, labels, len(x), verbose=0)),
        ("predict", lambda: model.predict(x, len(x), verbose=0)),
    ):
        start = time.process_time()
        call()
        found[key] = time.process_time() - start
    return found


def child_memory(kind: str, name: str) -> dict[str, float]:
    import keras_qat  # noqa: F401  (its imports are not counted)

    before = peak_rss_mib()
    model, x = made(kind, name)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    for _ in range(3):
        model.train_on_batch(x, np.arange(len(x)) % 10)
    return {"peak": peak_rss_mib() - before}


def child_quantize(name: str) -> dict[str, float]:
    from speed import NETWORKS

    return timed(NETWORKS[name][0]())


def child_growth(blocks: str, channels: str) -> dict[str, float]:
    timed(network(1, 4))  # the first call compiles functions
    return timed(network(int(blocks), int(channels)))


def timed(model: Any) -> dict[str, float]:
    """Quantizes and calibrates a model."""
    import keras_qat

    x = np.random.default_rng(0).random((8, *model.input_shape[1:]), "float32")
    start, before = time.process_time(), peak_rss_mib()
    keras_qat.quantize_model(model, calibration_data=x)
    seconds, peak = time.process_time() - start, peak_rss_mib() - before
    return {"parameters": model.count_params(), "seconds": seconds, "peak": peak}


def in_fresh_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(*arguments, result, flush=True)
    return result


def exponent(sizes: list[float], costs: list[float]) -> float:
    """Returns the slope of the line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def rows_of(args) -> list[tuple[str, float, float, str]]:
    """Returns what was measured, the result, the goal and the figures."""
    rows = []
    for name in args.networks:
        for what, goal in (("start", START_GOAL), ("memory", MEMORY_GOAL)):
            both = [in_fresh_process(what, kind, name) for kind in ("base", "ours")]
            for key, base in both[0].items():
                ours = both[1][key]
                figures = f"{ours:.1f} / {base:.1f}"
                rows.append((f"{what}, {key}, {name}", ours / base, goal, figures))
        seconds = in_fresh_process("quantize", name)["seconds"]
        rows.append((f"quantize and calibrate, {name}, s", seconds, QUANTIZE_GOAL, ""))
    found = [in_fresh_process("growth", *map(str, size)) for size in SIZES[: args.sizes]]
    sizes = [each["parameters"] for each in found]
    for key in ("seconds", "peak"):
        costs = [each[key] for each in found]
        figures = ", ".join(f"{n / 1e6:.1f} M: {c:.1f}" for n, c in zip(sizes, costs, strict=True))
        rows.append((f"growth, {key}: exponent", exponent(sizes, costs), EXPONENT_GOAL, figures))
    return rows


def arguments(parser) -> None:
    parser.add_argument("--networks", nargs="+", default=["MobileNetV2 96", "EfficientNetB0 96"])
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="networks of the growth")
    parser.add_argument("--child", nargs="+", metavar="X", help="for internal use")


def main() -> None:
    args = parse(__doc__, arguments)
    if args.child:
        what, *rest = args.child
        children = {
            "start": child_start,
            "memory": child_memory,
            "quantize": child_quantize,
            "growth": child_growth,
        }
        print(json.dumps(children[what](*rest)))
        return
    print_environment()
    rows = rows_of(args)
    cells = [(w, f"{v:.2f}", goal, verdict(v, goal), figures) for w, v, goal, figures in rows]
    print_table("Costs of training", ("", "ratio or s", "goal <=", "", "figures"), cells)
    save(args.json, [dict(zip(("what", "value", "goal"), each, strict=False)) for each in rows])


if __name__ == "__main__":
    main()
