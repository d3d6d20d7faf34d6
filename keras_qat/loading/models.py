"""load_model: loads any file in which Keras saved a model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py
import keras

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.archive import check_archive, write_copy
from keras_qat.loading.files.budget import check_budget, without_state
from keras_qat.loading.files.compiling import compile_as_saved
from keras_qat.loading.files.failures import about_file, check_is_file
from keras_qat.loading.files.hdf5 import (
    check_stored,
    json_attribute,
    open_hdf5,
    saved_layers,
    text_attribute,
)
from keras_qat.loading.files.lambdas import replace_code
from keras_qat.loading.files.safety import check_code, check_config
from keras_qat.loading.files.source import Source
from keras_qat.loading.keras2.old_models import load_old_model


def load_model(
    path: str | os.PathLike,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Loads a model that Keras saved: `.keras`, or `.h5` of Keras 1, 2 or 3.

    Files of Keras 1 and 2 are translated; `docs/loading.md` lists what is read. Code in a file is
    not run unless the caller allows it. The model is compiled as it was when it was saved, if
    Keras 3 knows loss, metrics and optimizer. The optimizer's state is not read from files of
    Keras 1 and 2.

    Args:
        path: The file. Its kind is detected from its content.
        custom_objects: Classes and functions that are not Keras's, by their names in the file:
            layers, activations, initializers, regularizers, constraints, losses, metrics,
            optimizers. A function under the name of a `Lambda` layer replaces the layer's code.
        safe_mode: Whether code in the file, such as in a `Lambda` layer, is refused. Turn it off
            only if you trust the author of the file: the code runs with your permissions.

    Returns:
        The model.

    Raises:
        InvalidFileError: If the file is damaged, is not a model, or needs what Keras 3 cannot do.
        UnsafeFileError: If loading would run code, or read other files.

    Example:
    >>> import pathlib, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    >>> model.save(path)
    >>> load_model(path).layers[0].name
    'head'
    """
    source = Source(os.fspath(path), dict(custom_objects or {}), safe_mode)
    with about_file(source.path):
        check_is_file(source.path)
        if h5py.is_hdf5(source.path):
            return _load_hdf5(source)
        if zipfile.is_zipfile(source.path):
            return _load_archive(source)
        raise InvalidFileError(
            "This is not a Keras file, or it is damaged.",
            expected="a `.keras` archive or an HDF5 file, which is not cut off",
        )


def _load_hdf5(source: Source) -> keras.Model:
    with open_hdf5(source.path) as file:
        config = json_attribute(file, "model_config")
        if config is None:
            raise InvalidFileError(
                "The file has weights, but no model.",
                fix="Build the model, and use `keras_qat.load_weights(model, path)`.",
            )
        if (text_attribute(file, "keras_version") or "1").split(".")[0] in ("1", "2"):
            return load_old_model(file, config, source)
        training = json_attribute(file, "training_config")
        stored, config = config, replace_code(config, source)
        check_config(config, source)
        check_code(training, source)
        layers = saved_layers(file)
        for _, dataset in [weight for layer in layers for weight in layer.weights]:
            check_stored(dataset)
        elements = sum(layer.elements for layer in layers)
    _check_ending(source, (".h5", ".hdf5"))
    check_budget(elements, lambda: _old_form(without_state(config), source))
    with tempfile.TemporaryDirectory() as folder:
        path = source.path
        if config is not stored:
            path = shutil.copy(path, os.path.join(folder, "copy.h5"))
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = json.dumps(config)
        model = _load_with_keras(path, source, compile=False)
    compile_as_saved(model, training, source)
    return model


def _load_archive(source: Source) -> keras.Model:
    config, is_changed, elements = check_archive(source)
    _check_ending(source, (".keras",))

    def make() -> Any:
        return keras.saving.deserialize_keras_object(
            without_state(config),
            custom_objects=dict(source.custom_objects),
            safe_mode=source.safe_mode,
        )

    check_budget(elements, make)
    if not is_changed:
        return _load_with_keras(source.path, source, compile=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.keras")
        write_copy(source.path, config, copy)
        return _load_with_keras(copy, source, compile=True)


def _old_form(config: Any, source: Source) -> keras.Model:
    """Builds a model from the configuration of Keras 3's `.h5` files, which names no modules."""
    model_class = {"Sequential": keras.Sequential, "Functional": keras.Model}.get(
        config["class_name"], source.custom(config["class_name"])
    )
    return model_class.from_config(config["config"], custom_objects=dict(source.custom_objects))


def _load_with_keras(path: str, source: Source, compile: bool) -> keras.Model:
    model = keras.saving.load_model(
        path,
        custom_objects=dict(source.custom_objects),
        compile=compile,
        safe_mode=source.safe_mode,
    )
    if not isinstance(model, keras.Model):
        raise InvalidFileError("The file does not hold a model.", received=type(model).__name__)
    return model


def _check_ending(source: Source, endings: tuple[str, ...]) -> None:
    """Raises if a file name does not end as Keras requires."""
    if not source.path.endswith(endings):
        raise InvalidFileError(
            "The name of the file has the wrong ending.",
            expected=f"a name that ends in {' or '.join(endings)}",
            fix="Rename it.",
        )
