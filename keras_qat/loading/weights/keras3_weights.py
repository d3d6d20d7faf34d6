"""Weights in Keras 3's own formats. Keras reads them after their arrays were compared."""

from __future__ import annotations

import contextlib
import io
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import keras
from keras import ops

from keras_qat.errors import InvalidFileError
from keras_qat.layers import QuantizedLayer
from keras_qat.loading.files.hdf5 import open_hdf5
from keras_qat.loading.weights.report import WeightsReport

# The group of the optimizer's variables, which are not weights of the model.
_OPTIMIZER = "optimizer"
_OLD_LAYERS = "_layer_checkpoint_dependencies/"  # as Keras 3.0 called `layers/`


def load_with_keras(model: keras.Model, path: str, skip_mismatch: bool) -> WeightsReport:
    """Loads a `.weights.h5` or `.keras` file, whose layers have no names.

    Args:
        model: The model. It is not changed if an error is raised.
        path: The file.
        skip_mismatch: Whether weights that do not fit are left out.

    Raises:
        InvalidFileError: If the file does not fit the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = str(pathlib.Path(folder, "own.weights.h5"))
        model.save_weights(own)
        with h5py.File(own, "r+") as target, open_hdf5(_content(path)) as file:
            saved, known = _arrays(file), _arrays(target)
            unexpected = tuple(name for name in saved if name not in known)
            if not skip_mismatch:
                _check_arrays(model, known, saved)
            left = _take_up(target, file) if skip_mismatch else set()
        with _all_or_nothing(model):
            model.load_weights(own if skip_mismatch else path)
    is_left = [(variable, bool(left & set(variable.path.split("/")))) for variable in model.weights]
    return WeightsReport(
        path,
        loaded=tuple(variable.path for variable, out in is_left if not out),
        missing=tuple(variable.path for variable, out in is_left if out),
        unexpected=unexpected,
    )


def _check_arrays(
    model: keras.Model, known: Mapping[str, h5py.Dataset], saved: Mapping[str, h5py.Dataset]
) -> None:
    """Raises if a file has an array that the model lacks or has in another shape."""
    unexpected = [name for name in saved if name not in known]
    if unexpected:
        raise InvalidFileError(
            "The file has weights that the model has no variables for.",
            received=", ".join(unexpected[:4]),
            fix=_fix(model),
        )
    for name, own in known.items():
        if name in saved and saved[name].shape != own.shape:
            raise InvalidFileError(
                "A weight has another shape in the file than in the model.",
                layer=_layer_of(own),
                received=f"{saved[name].shape}, in '{name}'",
                expected=f"{own.shape}",
                fix=_fix(model),
            )


def _layer_of(array: h5py.Dataset) -> str:
    """Returns the name of the layer that saved an array."""
    return array.parent.attrs.get("name", array.parent.name)


def _content(path: str) -> Any:
    """Opens the HDF5 file with the weights: the file itself, or the one in a `.keras` archive."""
    if not path.endswith(".keras"):
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


def _take_up(target: h5py.File, file: h5py.File) -> set[str]:
    """Copies weights that fit from one file into another, layer by layer.

    Args:
        target: The weights of the model, as saved by Keras.
        file: The weights to copy.

    Returns:
        The names of the layers that keep their weights, because one of their arrays is missing in
        the file or has another shape there.
    """
    saved, left = _arrays(file), set()
    groups: dict[str, list[str]] = {}
    for name in _arrays(target):
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    for group, names in groups.items():
        if any(name not in saved or saved[name].shape != target[name].shape for name in names):
            left.add(_layer_of(target[names[0]]))
            continue
        for name in names:
            del target[name]
            file.copy(saved[name], target[group], name.rpartition("/")[2])
    target.pop(_OPTIMIZER, None)
    if _OPTIMIZER in file:
        file.copy(_OPTIMIZER, target)
    return left


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Returns the arrays of a file, except the optimizer's, by their present names in Keras."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and not name.startswith(f"{_OPTIMIZER}/"):
            found[name.replace(_OLD_LAYERS, "layers/")] = entry

    file.visititems(visit)
    return found


@contextlib.contextmanager
def _all_or_nothing(model: keras.Model) -> Iterator[None]:
    """Restores all variables if loading fails, because Keras assigns some before it raises."""
    optimizer: Any = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    before = [ops.convert_to_numpy(variable) for variable in variables]
    try:
        yield
    except Exception as error:  # Keras and its layers raise various types
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidFileError(
            "The weights in the file do not belong to the model.",
            received=" ".join(lines[:2])[:400],
            fix=_fix(model),
        ) from error


def _fix(model: keras.Model) -> str:
    if any(isinstance(layer, QuantizedLayer) for layer in model.layers):
        return "Load them into the model that they were saved from, and quantize that."
    return "Pass `skip_mismatch=True` to leave out what does not fit."
