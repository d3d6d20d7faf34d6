"""Measures time and memory of cloning, against `keras.models.clone_model`.

Each figure comes from a new process. Time: `keras_qat.clone_model`, Keras's clone, and Keras's
clone with copied weights run in turns. The smallest time of the rounds counts, as CPU time of the
process (all threads) and as wall time.

Memory: a thread reads the resident memory of the process each millisecond. `added` is the peak
during cloning minus the resident memory before the call. At that time the original model exists,
and the library has cloned a model of four layers. The goal is about original and clone together:
weights of the original plus `added`, divided by two copies of the weights. The next column has the
whole memory of the original instead of its weights: the resident memory with it minus that before
it was built, which includes Keras's objects and leftovers of drawing random weights.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from common import interleave, parse, print_environment, print_table, save, verdict

TIME_GOAL, MEMORY_GOAL = 2.0, 1.2
MODELS = ("MobileNetV2", "ResNet152", "EfficientNetB7")
MEBI = 2**20


def application(name: str) -> Any:
    import keras

    return getattr(keras.applications, name)(weights=None)


def keras_clone_with_weights(model: Any) -> Any:
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def cloners() -> dict[str, Any]:
    import keras

    import keras_qat

    return {
        "keras": keras.models.clone_model,
        "keras, weights copied": keras_clone_with_weights,
        "ours": keras_qat.clone_model,
    }


def measure_time(name: str, rounds: int) -> dict[str, Any]:
    model = application(name)
    calls = {key: lambda clone=clone: clone(model) for key, clone in cloners().items()}
    return {key: timing.to_dict() for key, timing in interleave(calls, rounds).items()}


def resident() -> int:
    """Returns the resident bytes of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Records the peak of resident memory until it is stopped."""

    def __init__(self):
        super().__init__()
        self.bytes = resident()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.001):
            self.bytes = max(self.bytes, resident())

    def stop(self) -> int:
        self._stopped.set()
        self.join()
        return max(self.bytes, resident())


def measure_memory(name: str, cloner: str) -> dict[str, Any]:
    import keras
    from keras import layers

    clone = cloners()[cloner]
    convolved = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    clone(keras.Sequential([keras.Input((8, 8, 3)), *convolved]))
    gc.collect()
    start = resident()
    model = application(name)
    weights = sum(variable.numpy().nbytes for variable in model.variables)
    gc.collect()
    before, sampler = resident(), Peak()
    sampler.start()
    made = clone(model)
    added = sampler.stop() - before
    assert made is not model
    return {
        "weights": weights,
        "original": before - start,
        "added": added,
        "ratio": (weights + added) / (2 * weights),
        "ratio_all": (before - start + added) / (2 * weights),
    }


def in_fresh_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, rounds: int) -> dict[str, Any]:
    times = in_fresh_process("time", name, str(rounds))
    memory = {key: in_fresh_process("memory", name, key) for key in ("keras", "ours")}
    smallest = {
        clock: {key: timing[f"{clock}_min"] for key, timing in times.items()}
        for clock in ("cpu", "wall")
    }
    ratios = {
        f"{clock}, against {key}": values["ours"] / values[key]
        for clock, values in smallest.items()
        for key in ("keras", "keras, weights copied")
    }
    return {"times": times, "ratios": ratios, "memory": memory}


def show(results: dict[str, dict]) -> None:
    rows = []
    for name, result in results.items():
        times, ratios = result["times"], result["ratios"]
        ratio = ratios["cpu, against keras"]
        rows.append(
            (
                name,
                *(f"{1000 * timing['cpu_min']:.0f}" for timing in times.values()),
                *(f"{value:.2f}" for value in ratios.values()),
                verdict(ratio, TIME_GOAL),
            )
        )
    headings = ("", "Keras, CPU ms", "with weights", "ours", "ratio", "to with weights")
    headings += ("wall ratio", "to with weights", f"goal: ratio <= {TIME_GOAL}")
    print_table("Time of cloning (smallest of the rounds)", headings, rows)
    rows = []
    for name, result in results.items():
        for key, memory in result["memory"].items():
            sizes = (f"{memory[k] / MEBI:.0f}" for k in ("weights", "original", "added"))
            ratios = (f"{memory[k]:.2f}" for k in ("ratio", "ratio_all"))
            goal = verdict(memory["ratio"], MEMORY_GOAL) if key == "ours" else ""
            rows.append((f"{name}, {key}", *sizes, *ratios, goal))
    headings = ("", "weights, MiB", "original takes", "cloning adds, at most")
    headings += ("of two copies", "with all of the original", f"goal: of two <= {MEMORY_GOAL}")
    print_table("Resident memory while cloning", headings, rows)


def arguments(parser) -> None:
    parser.add_argument("--models", nargs="+", default=MODELS, help="models of keras.applications")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each side")
    parser.add_argument("--child", nargs=3, metavar="X", help="for internal use")


def main() -> None:
    args = parse(__doc__, arguments)
    if args.child:
        what, name, argument = args.child
        if what == "time":
            print(json.dumps(measure_time(name, int(argument))))
        else:
            print(json.dumps(measure_memory(name, argument)))
        return
    print_environment()
    results = {}
    for name in args.models:
        print(f"{name} ...", flush=True)
        results[name] = measure(name, args.rounds)
    show(results)
    save(args.json, results)


if __name__ == "__main__":
    main()
