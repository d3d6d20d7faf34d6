"""Counts the files in which code runs for one Conv2D, BatchNormalization and ReLU.

Run it in the root of the repository: `.venv/bin/python tools/way_of_data.py`. With `--files` it
lists the files too, with the functions that run in each.
"""

from __future__ import annotations

import collections
import os
import pathlib
import sys
import tempfile
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_qat
from keras_qat.layers import QConv2D
from keras_qat.passes.running import run_pass

PACKAGE = pathlib.Path(keras_qat.__file__).parent


def small_model() -> keras.Model:
    """Returns a model of a convolution, a batch normalization and a ReLU."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, keras.layers.ReLU(name="relu")(x))


def functions_of(call, idle: dict[str, bool]) -> dict[str, set[str]]:
    """Runs a function. Returns the functions of the package that ran, by their files.

    Args:
        call: The function.
        idle: Gets for each pass whether it has left each graph as it was.
    """
    found = collections.defaultdict(set)

    def note(frame, event, result):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(PACKAGE)):
            found[os.path.relpath(path, PACKAGE)].add(frame.f_code.co_qualname)
        if event == "return" and frame.f_code is run_pass.__code__:
            name, graph = frame.f_locals["name"], frame.f_locals["graph"]
            idle[name] = idle.get(name, True) and is_same(graph, result)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {path: names - {"<module>"} for path, names in found.items() if names - {"<module>"}}


def is_same(graph, other) -> bool:
    """Returns whether two graphs have the same nodes, but for where the nodes come from."""
    nodes = [
        {name: (each.operations, each.inputs, each.scheme) for name, each in one.nodes.items()}
        for one in (graph, other)
    ]
    return nodes[0] == nodes[1] and graph.outputs == other.outputs


def is_idle(path: str, idle: dict[str, bool]) -> bool:
    """Returns whether a file is that of a pass, or of its rules, that left each graph as it was."""
    folder, _, name = path.rpartition("/")
    owner = {"passes": name.removesuffix(".py"), "passes/canonical": "canonicalize"}.get(folder)
    return idle.get(owner or "", False)


def steps(folder: pathlib.Path):
    """Yields the name and the function of each step."""
    made = []
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    yield "quantize_model", lambda: made.append(keras_qat.quantize_model(small_model()))
    yield "calibrate", lambda: keras_qat.calibrate(made[0], data, verbose=0)
    yield "export_litert", lambda: keras_qat.export_litert(made[0], folder / "model.tflite")


def main() -> None:
    """Prints the counts."""
    whole: dict[str, set[str]] = collections.defaultdict(set)
    idle: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, call in steps(pathlib.Path(folder)):
            found = functions_of(call, idle)
            print(f"{name}: {len(found)} files, {sum(map(len, found.values()))} functions")
            for path, names in found.items():
                whole[path] |= names
    print(f"together: {len(whole)} files, {sum(map(len, whole.values()))} functions")
    rest = [path for path in whole if not is_idle(path, idle)]
    print(f"without passes that change nothing: {len(rest)} files")
    own = [each for each in QConv2D.__mro__[1:] if each.__module__.startswith("keras_qat.")]
    print(f"classes above QConv2D: {len(own)}, {', '.join(each.__name__ for each in own)}")
    sources = list(PACKAGE.rglob("*.py"))
    lines = sum(path.read_text().count("\n") for path in sources)
    print(f"keras_qat: {len(sources)} files, {lines} lines")
    if "--files" in sys.argv:
        for path in sorted(whole):
            print(f"{path}: {', '.join(sorted(whole[path]))}")


if __name__ == "__main__":
    main()
