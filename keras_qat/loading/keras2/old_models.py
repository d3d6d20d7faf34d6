"""Whole models that Keras 1 or 2 saved in HDF5: configuration, weights, optimizer."""

from __future__ import annotations

from typing import Any

import h5py
import keras

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.budget import check_budget, without_state
from keras_qat.loading.files.compiling import compile_as_saved
from keras_qat.loading.files.hdf5 import SavedLayer, json_attribute, read_array, saved_layers
from keras_qat.loading.files.lambdas import replace_code
from keras_qat.loading.files.safety import check_code
from keras_qat.loading.files.source import Source
from keras_qat.loading.keras2.building import build_old_model
from keras_qat.loading.weights.matching import match_layer, old_order


def load_old_model(file: h5py.File, config: Any, source: Source) -> keras.Model:
    """Builds the model in a file of Keras 1 or 2, with its weights.

    Args:
        file: The open file.
        config: Its `model_config`.
        source: The file's path, and the options of `load_model`.

    Raises:
        InvalidFileError: If the model cannot be built, or its weights do not fit.
        UnsafeFileError: If the model would run code of the file.
    """
    training, config = json_attribute(file, "training_config"), replace_code(config, source)
    for part in (config, training):
        check_code(part, source)
    layers = saved_layers(file)
    elements = sum(layer.elements for layer in layers)
    check_budget(elements, lambda: build_old_model(without_state(config), source))
    model = build_old_model(config, source)
    if not model.built:
        raise InvalidFileError(
            "The file does not say the shape of the input.",
            layer=model.name,
            fix="Build the model with `keras.Input`, and use `keras_qat.load_weights`.",
        )
    assign_whole_model(model, layers)
    compile_as_saved(model, training, source)
    return model


def assign_whole_model(model: keras.Model, layers: list[SavedLayer]) -> None:
    """Assigns to each layer the weights that the file has under its name.

    Raises:
        InvalidFileError: If a weight is missing, left over, or of another shape.
    """
    saved = {layer.name.replace("/", "_"): layer for layer in layers if layer.weights}
    for layer in model.layers:
        if not old_order(layer):
            continue
        if layer.name not in saved:
            raise InvalidFileError("The file has no weights for this layer.", layer=layer.name)
        for variable, (name, dataset) in match_layer(layer, saved.pop(layer.name)):
            values = read_array(dataset)
            if values.shape != tuple(variable.shape):
                values = _of_keras_1(values, tuple(variable.shape), name, layer.name)
            variable.assign(values)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    if saved:
        raise InvalidFileError(
            "The file has weights that no layer of its model takes.",
            received=", ".join(sorted(saved)[:5]),
        )


def _of_keras_1(values: Any, shape: tuple[int, ...], name: str, layer: str) -> Any:
    """Removes the extra axis from the kernel of a Keras 1 `Convolution1D`."""
    has_axis_more = name.endswith("_W") and values.ndim == 4 and values.shape[1] == 1
    if has_axis_more and values[:, 0].shape == shape:
        return values[:, 0]
    raise InvalidFileError(
        "A weight has another shape than its layer.",
        layer=layer,
        received=f"{name} {values.shape}",
        expected=str(shape),
    )
