"""load_weights: loads the weights of a file into its model, or into the rewritten model."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import Any

import h5py
import keras

from keras_qat.errors import InvalidFileError, InvalidModelError
from keras_qat.layers import QuantizedLayer
from keras_qat.loading.files.archive import check_archive
from keras_qat.loading.files.failures import about_file, check_is_file
from keras_qat.loading.files.hdf5 import SavedLayer, open_hdf5, read_array, saved_layers, sizes
from keras_qat.loading.files.source import Source
from keras_qat.loading.weights.keras3_weights import load_with_keras
from keras_qat.loading.weights.matching import Pair, match_layer, naming, old_order
from keras_qat.loading.weights.report import Mismatch, WeightsReport
from keras_qat.loading.weights.rewritten import match_rewritten, rewritten_targets


def load_weights(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    by_name: bool = False,
    skip_mismatch: bool = False,
) -> WeightsReport:
    """Loads weights from a file of Keras 1, 2 or 3 into a built model.

    A model from `clone_model` or `quantize_model` gets the weights of the original model, by the
    names of the layers. The model is not changed if an error is raised. The file has no ranges for
    a quantized model: calibrate it again.

    Args:
        model: A built model.
        path: An `.h5` file with weights or with a whole model, or Keras 3's `.weights.h5` or
            `.keras`.
        by_name: Whether to load only layers whose names are in the file. Otherwise all layers must
            fit. They are matched by name if all names are the same, else by order.
        skip_mismatch: Whether to leave out weights of another shape instead of raising an error.

    Returns:
        The report on loaded and other weights.

    Raises:
        InvalidFileError: If the file is damaged, or does not fit the model.
        InvalidModelError: If the model is not built.

    Example:
    >>> import pathlib, tempfile, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> path = pathlib.Path(tempfile.mkdtemp(), "head.h5")
    >>> model.save(path)
    >>> print(load_weights(keras_qat.quantize_model(model), path).loaded)
    ('head/kernel', 'head/bias')
    """
    name = os.fspath(path)
    if not isinstance(model, keras.Model) or not model.built:
        raise InvalidModelError(
            "Weights can only be loaded into a built model.",
            layer=getattr(model, "name", None),
            received=f"a {type(model).__name__}",
            fix="Give it a `keras.Input`, or call `model.build(input_shape)`.",
        )
    with about_file(name, "The weights cannot be loaded."):
        check_is_file(name)
        if zipfile.is_zipfile(name) and not h5py.is_hdf5(name):
            check_archive(Source(name, safe_mode=False))
            return _load_with_keras(model, name, by_name, skip_mismatch)
        with open_hdf5(name) as file:
            is_old = "model_weights" in file or _lists_layers(file)
            layers = saved_layers(file) if is_old else []
            if is_old:
                return _load_layers(model, layers, name, by_name, skip_mismatch)
            total = sum(sizes(file))
            if "_layer_checkpoint_dependencies" in file or not total:
                raise InvalidFileError(
                    "The weights are in a layout that Keras 3 does not read.",
                    received=f"groups {sorted(file)[:5]}",
                    fix="Save them in Keras 2 with `model.save_weights('weights.h5')`.",
                )
        return _load_with_keras(model, name, by_name, skip_mismatch)


def _lists_layers(file: h5py.File) -> bool:
    return "layer_names" in file.attrs or "layer_names0" in file.attrs


def _load_layers(
    model: keras.Model, layers: list[SavedLayer], path: str, by_name: bool, skip: bool
) -> WeightsReport:
    """Finds the variable for each weight, checks all pairs, then assigns."""
    saved = [layer for layer in layers if layer.weights]
    if any(isinstance(layer, QuantizedLayer) for layer in model.layers):
        found = rewritten_targets(model)
        pairs, targets = match_rewritten(found, saved), list(found.values())
    else:
        pairs = _match_plain(model, saved, by_name, skip)
        targets = [variable for layer in model.layers for variable in old_order(layer)]
    fitting = [(v, weight) for v, weight in pairs if tuple(v.shape) == weight[1].shape]
    report = _report(path, saved, targets, pairs, fitting)
    _check(report, by_name, skip)
    values = [(variable, read_array(dataset)) for variable, (_, dataset) in fitting]
    for variable, array in values:
        variable.assign(array)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return report


def _report(
    path: str, saved: list[SavedLayer], targets: list[Any], pairs: list[Pair], fitting: list[Pair]
) -> WeightsReport:
    taken, loaded = ({id(variable) for variable, _ in each} for each in (pairs, fitting))
    used = {dataset.name for _, (_, dataset) in pairs}
    return WeightsReport(
        path,
        loaded=tuple(variable.path for variable, _ in fitting),
        missing=tuple(variable.path for variable in targets if id(variable) not in taken),
        unexpected=tuple(
            name for layer in saved for name, dataset in layer.weights if dataset.name not in used
        ),
        mismatched=tuple(
            Mismatch(variable.path, tuple(variable.shape), tuple(dataset.shape))
            for variable, (_, dataset) in pairs
            if id(variable) not in loaded
        ),
    )


def _match_plain(
    model: keras.Model, saved: Sequence[SavedLayer], by_name: bool, skip: bool
) -> list[Pair]:
    """Matches layers by name, or by order if both have the same number of layers."""
    layers = [layer for layer in model.layers if old_order(layer)]
    alike = naming([layer.name for layer in layers], [layer.name for layer in saved])
    own = {alike(layer.name): layer for layer in layers}
    theirs = {alike(layer.name): layer for layer in saved}
    if by_name or set(own) == set(theirs):
        both = [(own[name], theirs[name]) for name in own if name in theirs]
    elif len(layers) != len(saved):
        raise InvalidFileError(
            "The file has weights of another number of layers.",
            received=f"{len(saved)} layers, {[layer.name for layer in saved[:4]]} first",
            expected=f"{len(layers)} layers, {[layer.name for layer in layers[:4]]} first",
            fix="Pass `by_name=True` to load what has the same layer names.",
        )
    else:
        both = list(zip(layers, saved, strict=True))
    pairs: list[Pair] = []
    for layer, weights in both:
        if skip and len(old_order(layer)) != len(weights.weights):
            continue
        pairs += match_layer(layer, weights)
    return pairs


def _check(report: WeightsReport, by_name: bool, skip: bool) -> None:
    """Raises if weights that have to be loaded were not."""
    if report.mismatched and not skip:
        first = report.mismatched[0]
        raise InvalidFileError(
            "A weight has another shape in the file than in the model.",
            layer=first.variable,
            received=f"{first.received}, and {len(report.mismatched) - 1} more like it",
            expected=f"{first.expected}",
            fix="Pass `skip_mismatch=True` to leave such weights out.",
        )
    if not report.loaded and (report.missing or report.unexpected):
        raise InvalidFileError(
            "No weight in the file belongs to the model.",
            received=", ".join(report.unexpected[:4]),
            expected=", ".join(report.missing[:4]),
            fix="Load them into the model that they were saved from; quantize that if you want to.",
        )
    if (report.missing or report.unexpected) and not by_name and not skip:
        raise InvalidFileError(
            "The weights in the file do not belong to the model.",
            received=f"not in the file: {', '.join(report.missing[:4]) or 'none'}; "
            f"not in the model: {', '.join(report.unexpected[:4]) or 'none'}",
            fix="Load them into the model that they were saved from, and quantize that; or pass "
            "`by_name=True` to leave the rest as it is.",
        )


def _load_with_keras(
    model: keras.Model, path: str, by_name: bool, skip_mismatch: bool
) -> WeightsReport:
    """Loads a file in one of Keras 3's own formats, which have no layer names."""
    if by_name:
        raise InvalidFileError(
            "This format has no names of layers to load by.",
            expected="an `.h5` file written by `model.save`, or by Keras 2",
        )
    if not path.endswith((".keras", ".weights.h5")):
        raise InvalidFileError(
            "The name of the file has the wrong ending.",
            expected="a name that ends in .keras or .weights.h5",
            fix="Rename it.",
        )
    return load_with_keras(model, path, skip_mismatch)
