"""The function `sensitivity`, which ranks layers by the cost of their quantization."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_qat.errors import InvalidMetricError, InvalidSchemeError
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.models.wrapped import find_quantized_model
from keras_qat.mixed_precision.candidates import (
    calibrate_all,
    integers_of,
    quantized_in,
    read_batches,
)
from keras_qat.mixed_precision.journal import Journal, digest
from keras_qat.mixed_precision.measuring import Bench
from keras_qat.mixed_precision.owners import Owner, owners_of
from keras_qat.mixed_precision.report import LayerSensitivity, SensitivityReport, ranked
from keras_qat.mixed_precision.runs import Runs, changed
from keras_qat.passes.config import Config
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.version import __version__

_MODES = ("max", "min")


def sensitivity(
    model: keras.Model,
    data: Any,
    metric: str | keras.Metric | Callable[[Any, Any], Any] | None = None,
    *,
    scheme: str | Scheme | None = None,
    wider: str | Scheme | None = None,
    targets: Any = None,
    mode: str = "max",
    steps: int | None = None,
    path: str | os.PathLike[str] | None = None,
    verbose: int | str = "auto",
    **options: Any,
) -> SensitivityReport:
    """Ranks the layers of a model by the cost of their quantization.

    Measures the outputs twice for each layer: if it alone is quantized and all others compute in
    float, and if all are quantized but this one, which is left wider. Layers compute as with
    `overrides`: an integer layer rounds its inputs and its output. The measure is the
    signal-to-noise ratio of the outputs against the float model, in dB. Its mean over several
    outputs is that of the noise powers.

    The quantized model is built, calibrated and compiled once. Each layer is then switched between
    float and integers in the compiled function, so that the search costs about two runs over the
    data for each layer.

    Args:
        model: A built float model, which is not changed; or a quantized model with ranges, which is
            measured with its weights, schemes and ranges.
        data: Data of the types that `calibrate` takes. A few hundred samples are enough. It
            calibrates a float model too, and is kept in memory.
        metric: A measure that ranks the layers instead of the ratio: a Keras metric, the name of
            one, such as `"accuracy"`, or a function of targets and outputs, arrays of all samples,
            that returns a number.
        scheme: The scheme of the quantized layers, by default `"int8"`. A quantized model has
            schemes.
        wider: The scheme of a layer that is left wider, such as `"int8"` if `scheme` has 4 bits;
            None for float.
        targets: The targets of `metric`, if `data` consists of arrays. Without it the elements of
            `data` are `(inputs, targets)` or `(inputs, targets, weights)`.
        mode: `"max"` if a larger metric is better, or `"min"`.
        steps: The number of batches to use. None for all.
        path: A file that keeps each measurement. If the process is stopped, the same call continues
            from it.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.
        **options: Further arguments of `quantize_model`, such as `overrides` or `target`.

    Returns:
        A `SensitivityReport`: print it, draw it with `plot`, or use its `rows`. Their names are
        keys of `overrides`.

    Raises:
        InvalidModelError: If the model is not built.
        InvalidSchemeError: If a scheme is unknown, or a quantized model gets another one.
        InvalidDataError: If the data does not fit, or targets are missing.
        InvalidMetricError: If the metric cannot be computed, or `mode` is unknown.
        InvalidFileError: If `path` has measurements of another model, of other data or of other
            options, or is another kind of file.
        MissingRangeError: If tensors of a quantized model lack min/max data.
        KerasQatError: Other errors of `quantize_model`, for the model and the options.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="hidden"),
    ...                           keras.layers.Dense(2, name="head")])
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> report = sensitivity(model, x, verbose=0)
    >>> sorted(row.layer for row in report.rows)[:2]
    ['head', 'hidden']
    >>> bool(min(row.alone for row in report.rows) > report.quantized)
    True
    """
    if mode not in _MODES:
        raise InvalidMetricError(
            "Unknown mode of a metric.",
            received=f"mode={mode!r}",
            expected=f"one of {_MODES}",
            fix='Pass mode="max" if a larger metric is better, else mode="min".',
        )
    models, owners = _models(model, scheme, wider, options)
    batches, labels = read_batches(data, models[0], metric, targets, steps)
    if models[0] is not find_quantized_model(model):
        calibrate_all(models, batches)
    models[0].check_ranges()
    named = None if labels is None else _name_of_metric(metric)
    schemes = [_name_of_scheme(each) for each in models]
    header = {
        "version": __version__,
        "model": digest([_configuration(models), *model.get_weights()]),
        "data": digest(array for batch, _ in batches for array in batch),
        "metric": None if labels is None else [named, digest(labels.arrays())],
    }
    journal = Journal(path, header)  # raises before anything is compiled
    bench = Bench(models, owners, batches, labels)
    runs = Runs(bench, journal, 2 * len(owners) + 2, verbose)
    exact, whole = runs.measure("float", bench.all_in(0)), runs.measure("all", bench.all_in(1))
    rows = list(_rows(runs, models, owners))
    return SensitivityReport(
        model.name,
        schemes[0],
        schemes[1] if len(models) > 1 else None,
        tuple(ranked(rows, is_larger_better=mode == "max")),
        whole.decibels,
        sum(count for _, count in batches),
        named,
        exact.metric,
        whole.metric,
    )


def _models(
    model: keras.Model,
    scheme: str | Scheme | None,
    wider: str | Scheme | None,
    options: Mapping[str, Any],
) -> tuple[list[QuantizedModel], list[Owner]]:
    """Returns the quantized model, that of the wider scheme if there is one, and the owners."""
    known = find_quantized_model(model)
    if known is None:
        schemes = [get_scheme(scheme or "int8"), *([] if wider is None else [get_scheme(wider)])]
        return quantized_in(model, schemes, Config(schemes[0], **options))
    if scheme is not None or wider is not None or options:
        given = {"scheme": scheme, "wider": wider, **options}
        raise InvalidSchemeError(
            "A quantized model is measured with its own schemes and options.",
            received=f"{[name for name, value in given.items() if value is not None]}",
            fix="Leave them out, or pass the float model.",
        )
    return [known], owners_of(known, {})


def _rows(
    runs: Runs, models: Sequence[QuantizedModel], owners: Sequence[Owner]
) -> Iterator[LayerSensitivity]:
    """Measures each layer alone, and left wider."""
    bench, wide = runs.bench, len(models) if len(models) > 1 else 0
    for i, owner in enumerate(owners):
        alone = runs.measure(f"alone {owner.name}", changed(bench.all_in(0), i, 1))
        # A layer with the same integers in both schemes is the whole model.
        forms = bench.all_in(1) if _is_alike(models, owner) else changed(bench.all_in(1), i, wide)
        wider = runs.measure(f"wider {owner.name}", forms)
        both = alone.decibels, wider.decibels, alone.metric, wider.metric
        yield LayerSensitivity(owner.name, owner.origins, *both)


def _is_alike(models: Sequence[QuantizedModel], owner: Owner) -> bool:
    """Whether the layers of an owner have the same integers in both schemes."""
    if len(models) == 1:
        return False
    made = [{layer.name: layer for layer in model.layers} for model in models]
    return all(
        integers_of(made[0][name].scheme) == integers_of(getattr(made[1].get(name), "scheme", None))
        for name in owner.layers
    )


def _configuration(models: Sequence[QuantizedModel]) -> str:
    """Returns the configurations of models as text, to compare them in another process."""
    configs = [{**model.get_config(), "name": ""} for model in models]
    return json.dumps(configs, default=lambda value: type(value).__name__)


def _name_of_scheme(model: QuantizedModel) -> str:
    layers = (layer for layer in model.layers if isinstance(layer, QuantizedLayer))
    names = {layer.scheme.name for layer in layers if layer.scheme is not None}
    return names.pop() if len(names) == 1 else "mixed"


def _name_of_metric(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", "metric"))
