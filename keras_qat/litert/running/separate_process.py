"""Kernels that run in a separate process: those of microcontrollers and of ARM64.

A kernel of TensorFlow Lite Micro may end its process, and those of ARM64 need an emulator.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.errors import LiteRTFormatError, MissingPackageError
from keras_qat.litert.running import child
from keras_qat.litert.running.litert_kernels import load_interpreter
from keras_qat.litert.running.tensor_details import all_details

# The folder of the emulated Python, if it is not `keras_qat/arm64` in the user's cache.
ARM64_FOLDER = "KERAS_QAT_ARM64"
_MESSAGE = 500  # the last characters of what a failed process wrote


class MicroKernels:
    """The kernels of TensorFlow Lite Micro, which microcontrollers run.

    All shapes are those that the file states. A dynamic batch therefore has one sample.

    Args:
        content: The file's content, which was checked before.
        num_threads: Not used: the kernels have one thread.

    Attributes:
        inputs: `TensorDetails` of each input, in the file's order.
        outputs: `TensorDetails` of each output, in the file's order.

    Raises:
        MissingPackageError: If the package tflite-micro is not installed.
        LiteRTFormatError: If the file cannot be loaded.
    """

    def __init__(self, content: bytes, num_threads: int):
        if importlib.util.find_spec("tflite_micro") is None:
            raise MissingPackageError(
                "The kernels 'tflite-micro' need the package tflite-micro.",
                fix="pip install 'keras-qat[micro]'",
            )
        self._content = content
        described = load_interpreter(content, "BUILTIN_WITHOUT_DEFAULT_DELEGATES", num_threads)
        self.inputs, self.outputs = (
            tuple(
                dataclasses.replace(each, shape=tuple(map(int, raw["shape"])))
                for each, raw in zip(all_details(describe), describe(), strict=True)
            )
            for describe in (described.get_input_details, described.get_output_details)
        )

    def run(self, pieces: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Runs the file once for each piece of the data, see `DefaultKernels.run`."""
        return _run_child(
            [sys.executable], "tflite-micro", "TensorFlow Lite Micro", self._content, pieces
        )


class Arm64Kernels:
    """LiteRT's default kernels on an emulated ARM64 processor.

    Args:
        content: The file's content, which was checked before.
        num_threads: Not used: the emulated kernels have one thread.

    Attributes:
        inputs: `TensorDetails` of each input, in the file's order.
        outputs: `TensorDetails` of each output, in the file's order.

    Raises:
        MissingPackageError: If there is no emulated Python.
        LiteRTFormatError: If the file cannot be loaded.
    """

    def __init__(self, content: bytes, num_threads: int):
        self._python = arm64_folder() / "python"
        if not self._python.exists():
            raise MissingPackageError(
                "The kernels 'arm64' need an emulated ARM64 Python with LiteRT.",
                expected=f"{self._python}",
                fix="Run `make arm64` in a checkout of keras_qat on Debian or Ubuntu. Set the "
                f"environment variable {ARM64_FOLDER} if the emulated Python has another folder.",
            )
        self._content = content
        described = load_interpreter(content, "BUILTIN_WITHOUT_DEFAULT_DELEGATES", num_threads)
        self.inputs = all_details(described.get_input_details)
        self.outputs = all_details(described.get_output_details)

    def run(self, pieces: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Runs the file once for each piece of the data, see `DefaultKernels.run`."""
        return _run_child([str(self._python)], "litert", "LiteRT on ARM64", self._content, pieces)


def arm64_folder() -> pathlib.Path:
    """Returns the folder of the emulated Python, which may not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get(ARM64_FOLDER) or pathlib.Path(cache, "keras_qat", "arm64"))


def _run_child(
    python: list[str],
    runtime: str,
    title: str,
    content: bytes,
    pieces: Sequence[Sequence[np.ndarray]],
) -> list[list[np.ndarray]]:
    """Runs a file in a new process. Returns the outputs of each piece."""
    with tempfile.TemporaryDirectory() as name:
        file, inputs, outputs = (pathlib.Path(name, x) for x in ("file", "in.npz", "out.npz"))
        file.write_bytes(content)
        named: dict[str, Any] = {
            f"{i}_{j}": x for i, piece in enumerate(pieces) for j, x in enumerate(piece)
        }
        np.savez(inputs, **named)
        # Without -P, the modules of this folder would be importable by their short names.
        command = [*python, "-P", child.__file__, runtime, *map(str, (file, inputs, outputs))]
        ended = subprocess.run(command, capture_output=True, check=False)
        if ended.returncode or not outputs.exists():
            written = ended.stderr.decode(errors="replace").strip()[-_MESSAGE:]
            raise LiteRTFormatError(
                f"{title} cannot run the file: its process ended with status {ended.returncode}.",
                received=written or "no message",
            )
        with np.load(outputs) as arrays:
            results: list[list[np.ndarray]] = [[] for _ in pieces]
            for key in arrays:
                results[int(key.partition("_")[0])].append(arrays[key])
    return results
