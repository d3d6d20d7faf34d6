"""One float model, quantized in several schemes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_qat.calibration.calibrating import calibrate
from keras_qat.compiler import compile
from keras_qat.data.batches import Batch, counted_batches, labelled_batches
from keras_qat.layers import QuantizedModel
from keras_qat.mixed_precision.measuring import Labels
from keras_qat.mixed_precision.owners import Owner, names_of, owners_of
from keras_qat.passes.config import Config
from keras_qat.scheme import Scheme

Data = list[tuple[Batch, int]]


def quantized_in(
    model: keras.Model, schemes: Sequence[Scheme], config: Config
) -> tuple[list[QuantizedModel], list[Owner]]:
    """Quantizes a float model in each scheme, without ranges.

    Args:
        model: The float model.
        schemes: The schemes.
        config: The rest of the configuration.

    Returns:
        The models, and the owners of the layers of the first one.
    """
    made, names = [], {}
    for scheme in schemes:
        compiled = compile(model, dataclasses.replace(config, scheme=scheme))
        made.append(compiled.build(QuantizedModel))
        compiled.prove(made[-1])
        names = names or names_of(compiled.source)
    return made, owners_of(made[0], names)


def calibrate_all(models: Sequence[QuantizedModel], data: Data) -> None:
    """Calibrates models with the same batches."""
    for model in models:
        calibrate(model, [batch for batch, _ in data], verbose=0)


def read_batches(
    data: Any, model: keras.Model, metric: Any, targets: Any, steps: int | None
) -> tuple[Data, Labels | None]:
    """Reads all batches, because each measurement runs over all of them.

    Args:
        data: The data, for a metric with targets in it or apart.
        model: The model.
        metric: The metric; None if no targets are needed.
        targets: The targets, if they are not in the data.
        steps: The number of batches to use; None for all.

    Returns:
        The batches of inputs with the numbers of samples, and the metric with its targets.

    Raises:
        InvalidDataError: If the data does not fit, or targets are missing.
    """
    if metric is None:
        return list(counted_batches(data, model, steps=steps)), None
    read = list(labelled_batches(data, model, targets, steps=steps))
    counted = [(batch, len(keras.tree.flatten(known)[0])) for batch, known, _ in read]
    return counted, Labels(metric, [known for _, known, _ in read], [each for *_, each in read])


def integers_of(scheme: Scheme | None) -> tuple[Any, ...] | None:
    """Returns the properties of a scheme that a layer's integers depend on; None for float."""
    if scheme is None:
        return None
    weights = scheme.weight_bits, scheme.weight_per_channel, scheme.weight_symmetric
    return scheme.dtype, *weights, scheme.storage
