"""Models from Keras and LiteRT files, quantized or not, with one interface."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import keras_qat
from keras_qat.data.batches import batches
from keras_qat_cli.errors import UsageError

Inputs = Sequence[tuple[str, tuple[int | None, ...]]]
_LITERT_MARK = b"TFL3"


def load_keras(path: str) -> Any:
    """Loads a model that Keras saved. Raises a clear error for a LiteRT file.

    Args:
        path: A `.keras` or `.h5` file.

    Returns:
        The model.

    Raises:
        UsageError: If the file is a `.tflite` file.
        InvalidFileError: If the file is damaged or is not a model.
    """
    if is_litert(path):
        raise UsageError(
            "A Keras model is needed here.",
            received=f"{path}, a LiteRT file",
            expected="a .keras or .h5 file",
        )
    return keras_qat.load_model(path)


def is_litert(path: str) -> bool:
    """Whether a file has the identifier of LiteRT."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8)[4:] == _LITERT_MARK


def inputs_of_keras(model: Any) -> Inputs:
    """Returns the name and shape of each input."""
    if not model.inputs:
        raise UsageError(
            "The inputs of the model are unknown.",
            received=f"a {type(model).__name__}",
            fix="Save it after it has been called, or as a functional model.",
        )
    return [(tensor.name, tuple(tensor.shape)) for tensor in model.inputs]


@dataclasses.dataclass(frozen=True)
class _End:
    name: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class _Ends:
    """The inputs of a model, in the form that `keras_qat.data` expects."""

    inputs: Sequence[_End]
    input: Any


class KerasFile:
    """A Keras model from a file, which predicts batch by batch.

    Args:
        path: The file.
    """

    def __init__(self, path: str):
        self._model = load_keras(path)
        self.kind = "Keras, quantized" if hasattr(self._model, "rewrite_log") else "Keras"
        own = inputs_of_keras(self._model)
        self._batch = own[0][1][0]
        self.inputs = [(name, (None, *shape[1:])) for name, shape in own]
        # A loaded Sequential has the attribute `inputs`, but not `input`.
        self._structure = getattr(self._model, "input", None)
        ends = [_End(*end) for end in self.inputs]
        self._ends = _Ends(ends, self._packed(ends))

    def predict(self, batch: Any) -> Any:
        """Returns the outputs for a batch of any size, even if the model's batch size is fixed."""
        (arrays,) = batches([batch], self._ends)
        size = self._batch or len(arrays[0])
        count = len(arrays[0])
        if count % size:
            rest = [np.repeat(array[-1:], size - count % size, axis=0) for array in arrays]
            arrays = [np.concatenate(pair) for pair in zip(arrays, rest, strict=True)]
        results = [
            self._model.predict_on_batch(self._packed([a[i : i + size] for a in arrays]))
            for i in range(0, count, size)
        ]
        if len(results) == 1 and count == size:
            return results[0]
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts)[:count], *results)

    def _packed(self, values: Sequence[Any]) -> Any:
        """Returns inputs in the structure of the model."""
        if self._structure is None:
            return values[0]
        return keras.tree.pack_sequence_as(self._structure, list(values))


class LiteRTFile:
    """A `.tflite` file, which predicts batch by batch.

    Args:
        path: The file.
        kernels: Name of the kernels.
        threads: The number of threads.
    """

    def __init__(self, path: str, kernels: str, threads: int):
        self._model = keras_qat.LiteRTModel(path, kernels, threads)
        self.kind = f"LiteRT, {kernels} kernels"
        names_and_tensors = zip(self._model.input_names, self._model.inputs, strict=True)
        self.inputs = [(name, (None, *tensor.shape[1:])) for name, tensor in names_and_tensors]

    def predict(self, batch: Any) -> Any:
        """Returns the outputs for a batch of inputs."""
        return self._model.predict_on_batch(batch)


def open_model(path: str, kernels: str, threads: int) -> KerasFile | LiteRTFile:
    """Opens a file of either kind.

    Args:
        path: The file.
        kernels: Kernels for a LiteRT file.
        threads: The number of threads for a LiteRT file.

    Returns:
        The model.
    """
    return LiteRTFile(path, kernels, threads) if is_litert(path) else KerasFile(path)


def outputs_by_name(outputs: Any) -> dict[str, np.ndarray]:
    """Returns outputs by name, or by number if they have no names."""
    if isinstance(outputs, dict):
        return {name: np.asarray(value) for name, value in outputs.items()}
    return {str(i): np.asarray(x) for i, x in enumerate(keras.tree.flatten(outputs))}
