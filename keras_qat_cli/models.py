"""Models from files, quantized or not, Keras or LiteRT, behind one face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import keras_qat
from keras_qat.data import batches
from keras_qat_cli.errors import UsageError

Inputs = Sequence[tuple[str, tuple[int | None, ...]]]
_LITERT_MARK = b"TFL3"


def load_keras(path: str) -> Any:
    """Loads what Keras saved; of a file that is LiteRT's it says so.

    Args:
        path: A `.keras` or `.h5` file.

    Returns:
        The model.

    Raises:
        UsageError: If it is a `.tflite` file.
        InvalidFileError: If it is damaged or no model.
    """
    if is_litert(path):
        raise UsageError(
            "A Keras model is needed here.",
            received=f"{path}, a LiteRT file",
            expected="a .keras or .h5 file",
        )
    return keras_qat.load_model(path)


def is_litert(path: str) -> bool:
    """Whether a file says of itself that it is LiteRT's."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8)[4:] == _LITERT_MARK


def inputs_of_keras(model: Any) -> Inputs:
    """Name and shape of each input."""
    if not model.inputs:
        raise UsageError(
            "The model does not say what its inputs are.",
            received=f"a {type(model).__name__}",
            fix="Save it after it has been called, or as a functional model.",
        )
    return [(tensor.name, tuple(tensor.shape)) for tensor in model.inputs]


class KerasFile:
    """A Keras model from a file, that predicts batch by batch.

    Args:
        path: The file.
    """

    def __init__(self, path: str):
        self._model = load_keras(path)
        self.kind = "Keras, quantized" if hasattr(self._model, "rewrite_log") else "Keras"
        self.inputs = inputs_of_keras(self._model)

    def predict(self, batch: Any) -> Any:
        """Outputs for a batch of inputs."""
        (checked,) = batches([batch], self._model)
        arrays = list(checked)
        return self._model.predict_on_batch(arrays if len(arrays) > 1 else arrays[0])


class LiteRTFile:
    """A `.tflite` file, that predicts batch by batch.

    Args:
        path: The file.
        kernels: Name of the kernels.
        threads: How many threads they may use.
    """

    def __init__(self, path: str, kernels: str, threads: int):
        self._model = keras_qat.LiteRTModel(path, kernels, threads)
        self.kind = f"LiteRT, {kernels} kernels"
        names_and_tensors = zip(self._model.input_names, self._model.inputs, strict=True)
        self.inputs = [(name, tensor.shape) for name, tensor in names_and_tensors]

    def predict(self, batch: Any) -> Any:
        """Outputs for a batch of inputs."""
        return self._model.predict_on_batch(batch)


def open_model(path: str, kernels: str, threads: int) -> KerasFile | LiteRTFile:
    """Opens a file of either kind.

    Args:
        path: The file.
        kernels: Kernels for a LiteRT file.
        threads: Threads for one.

    Returns:
        The model.
    """
    return LiteRTFile(path, kernels, threads) if is_litert(path) else KerasFile(path)


def outputs_by_name(outputs: Any) -> dict[str, np.ndarray]:
    """Outputs by name, or by number where they have none."""
    if isinstance(outputs, dict):
        return {name: np.asarray(value) for name, value in outputs.items()}
    return {str(i): np.asarray(x) for i, x in enumerate(keras.tree.flatten(outputs))}
