"""Weights in Keras 3's own formats: Keras reads them, what it would not say is looked up before."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import keras
from keras import ops

from keras_qat.errors import InvalidFileError
from keras_qat.layers import QuantizedLayer
from keras_qat.legacy.hdf5 import open_hdf5
from keras_qat.legacy.report import WeightsReport

# The root of what is in the file besides the model's weights.
_OPTIMIZER = "optimizer/"
_OLD_LAYERS = "_layer_checkpoint_dependencies/"  # as Keras 3.0 called `layers/`


def load_with_keras(model: keras.Model, path: str, skip_mismatch: bool) -> WeightsReport:
    """Loads a `.weights.h5` or `.keras` file, whose layers have no names.

    Args:
        model: The model. Nothing of it is changed if anything is wrong.
        path: The file.
        skip_mismatch: Whether what does not fit is left out.

    Raises:
        InvalidFileError: If the file does not fit the model.
    """
    unexpected = _unexpected(model, path)
    if unexpected and not skip_mismatch:
        raise InvalidFileError(
            "The file has weights that the model has no variables for.",
            received=", ".join(unexpected[:4]),
            fix=_fix(model),
        )
    with _all_or_nothing(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.load_weights(path, skip_mismatch=skip_mismatch)
    left: set[str] = set()
    for warning in caught:
        if "could not be loaded" in str(warning.message):
            left |= set(re.findall(r"name=([^\s,>]+)", str(warning.message)))
        elif "optimizer" in str(warning.message):  # whose state is not loaded
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    is_left: list[tuple[Any, bool]] = [
        (variable, bool(left & set(variable.path.split("/")))) for variable in model.weights
    ]
    return WeightsReport(
        path,
        loaded=tuple(variable.path for variable, out in is_left if not out),
        missing=tuple(variable.path for variable, out in is_left if out),
        unexpected=unexpected,
    )


def _unexpected(model: keras.Model, path: str) -> tuple[str, ...]:
    """The arrays in a file that the model would not write there itself."""
    with tempfile.TemporaryDirectory() as folder:
        own = pathlib.Path(folder, "own.weights.h5")
        model.save_weights(own)
        with open_hdf5(own) as file:
            known = set(_arrays(file))
    content: Any = path
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
    with open_hdf5(content) as file:
        return tuple(name for name in _arrays(file) if name not in known)


def _arrays(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, entry: names.append(name) if isinstance(entry, h5py.Dataset) else None
    )
    return [
        name.replace(_OLD_LAYERS, "layers/") for name in names if not name.startswith(_OPTIMIZER)
    ]


@contextlib.contextmanager
def _all_or_nothing(model: keras.Model) -> Iterator[None]:
    """Keras assigns what it can before it raises: all variables get their values back."""
    optimizer: Any = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    before = [ops.convert_to_numpy(variable) for variable in variables]
    try:
        yield
    except Exception as error:  # whatever Keras and its layers raise
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidFileError(
            "The weights in the file are not those of the model.",
            received=" ".join(lines[:2])[:400],
            fix=_fix(model),
        ) from error


def _fix(model: keras.Model) -> str:
    if any(isinstance(layer, QuantizedLayer) for layer in model.layers):
        return "Load them into the model that they were saved from, and quantize that."
    return "Pass `skip_mismatch=True` to leave out what does not fit."
