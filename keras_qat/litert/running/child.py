"""Runs a file on arrays, as a program: python child.py RUNTIME FILE INPUTS OUTPUTS.

`separate_process.py` starts it. It imports nothing of this package, since an emulated Python has
only numpy and the runtime. INPUTS and OUTPUTS are `.npz` files with the keys "run_position".
"""

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# Bytes. Only the pages that the file needs are taken from the system.
_ARENA = 2**30


def run_litert(content: bytes, pieces: list[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Yields the outputs of each run with LiteRT's default kernels."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for arrays in pieces:
        for details, array in zip(inputs, arrays, strict=True):
            interpreter.resize_tensor_input(details["index"], array.shape)
        interpreter.allocate_tensors()
        for details, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(details["index"], array)
        interpreter.invoke()
        yield [interpreter.get_tensor(details["index"]) for details in outputs]


def run_micro(content: bytes, pieces: list[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Yields the outputs of each run in TensorFlow Lite Micro."""
    from ai_edge_litert import schema_py_generated as schema

    runtime: Any = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    count = schema.Model.GetRootAs(content, 0).Subgraphs(0).OutputsLength()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=_ARENA)
    for arrays in pieces:
        for position, array in enumerate(arrays):
            interpreter.set_input(array, position)
        interpreter.invoke()
        yield [np.array(interpreter.get_output(position)) for position in range(count)]


RUNTIMES = {"litert": run_litert, "tflite-micro": run_micro}


def main(runtime: str, file: str, inputs: str, outputs: str) -> None:
    """Runs the file on all inputs, and saves the outputs."""
    pieces: dict[int, list[np.ndarray]] = {}
    with np.load(inputs) as arrays:
        for key in arrays:
            pieces.setdefault(int(key.partition("_")[0]), []).append(arrays[key])
    results = RUNTIMES[runtime](pathlib.Path(file).read_bytes(), list(pieces.values()))
    named: dict[str, Any] = {
        f"{i}_{j}": x for i, piece in enumerate(results) for j, x in enumerate(piece)
    }
    np.savez(outputs, **named)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (RuntimeError, ValueError) as error:  # the runtime has written its reason before
        sys.exit(str(error))
