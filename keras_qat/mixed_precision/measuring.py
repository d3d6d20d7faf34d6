"""Measures the outputs of a model whose layers are switched between float and integers."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.backend import on_one_replica
from keras_qat.data.batches import Batch
from keras_qat.data.scores import scores
from keras_qat.errors import InvalidMetricError
from keras_qat.layers import QuantizedModel
from keras_qat.mixed_precision.owners import Owner
from keras_qat.mixed_precision.switching import SwitchedModel

# The form of each switch, such as (0, 0, 1): float, float, and the integers of the first model.
Forms = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The outputs of a model, compared with those of the float model.

    Attributes:
        noise: Power of the difference, divided by the power of the float outputs. The mean over the
            outputs of the model.
        metric: The metric of the outputs; None without a metric.
    """

    noise: float
    metric: float | None = None

    @property
    def decibels(self) -> float:
        """The signal-to-noise ratio in dB. Infinite without noise."""
        return decibels(self.noise)


def decibels(noise: float) -> float:
    """Returns the signal-to-noise ratio in dB.

    Args:
        noise: Power of the noise, divided by the power of the signal.

    Example:
    >>> decibels(0.001)
    30.0
    """
    return math.inf if noise == 0 else -10 * math.log10(noise)


class Labels:
    """The targets of the data, and a metric that compares outputs with them.

    Args:
        metric: A function of targets and outputs as arrays, which returns a number or an array
            whose mean counts; or a Keras metric, or the name of one.
        targets: The targets of each batch.
        weights: The sample weights of each batch, each None without weights.
    """

    def __init__(self, metric: Any, targets: Sequence[Any], weights: Sequence[Any]):
        self._metric = metric
        self.targets = keras.tree.map_structure(_joined, *targets)
        has_weights = weights[0] is not None
        self._weights = keras.tree.map_structure(_joined, *weights) if has_weights else None

    def arrays(self) -> list[np.ndarray]:
        """Returns the targets and the weights as a list of arrays."""
        return [
            each for each in keras.tree.flatten((self.targets, self._weights)) if each is not None
        ]

    def metric(self, outputs: Mapping[str, np.ndarray]) -> float:
        """Returns the metric of outputs.

        Args:
            outputs: The values of each output by name.

        Raises:
            InvalidDataError: If a Keras metric does not fit the outputs and the targets.
            InvalidMetricError: If the function of the user raises an error.
        """
        if isinstance(self._metric, str | keras.metrics.Metric):
            found = scores(outputs, self.targets, self._weights, [self._metric], None)
            return next(iter(found.values()))
        values = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
        try:
            return float(np.mean(keras.ops.convert_to_numpy(self._metric(self.targets, values))))
        except Exception as error:  # the function of the user may raise anything
            raise InvalidMetricError(
                "The metric cannot be computed.",
                received=f"outputs of shape {[each.shape for each in outputs.values()]}, targets "
                f"of {keras.tree.map_structure(np.shape, self.targets)}: {error}",
                expected="a function of targets and outputs that returns a number",
                fix='Pass metric="accuracy", or a function that takes these arrays.',
            ) from error


class Bench:
    """Runs a switched model on data, and compares its outputs with those in float.

    Args:
        models: Quantized models of the same float model, see `SwitchedModel`.
        owners: The user's layers, one switch for each.
        data: The batches of inputs, each with the number of samples that count.
        labels: The metric; None to measure the noise only.
    """

    def __init__(
        self,
        models: Sequence[QuantizedModel],
        owners: Sequence[Owner],
        data: Sequence[tuple[Batch, int]],
        labels: Labels | None = None,
    ):
        switches = {layer: i for i, owner in enumerate(owners) for layer in owner.layers}
        self._model = SwitchedModel(models, switches)
        self._names = list(models[0].output_names)
        self._data, self._labels, self._count = data, labels, len(owners)
        self._run: Callable[[Sequence[Any]], Any] = on_one_replica(self._model)

    @functools.cached_property
    def _exact(self) -> dict[str, np.ndarray]:
        return self._outputs(self.all_in(0))

    def all_in(self, form: int) -> Forms:
        """Returns the forms of a model whose layers all have one form."""
        return (form,) * self._count

    def measure(self, forms: Forms) -> Measured:
        """Measures the model in these forms.

        Args:
            forms: The form of each owner's layers.
        """
        found = self._outputs(forms)
        noise = np.mean([_noise(self._exact[name], found[name]) for name in self._names])
        metric = None if self._labels is None else self._labels.metric(found)
        return Measured(float(noise), metric)

    def _outputs(self, forms: Forms) -> dict[str, np.ndarray]:
        """Returns the outputs of all samples by name, in these forms."""
        self._model.forms.assign(np.array(forms, "int32"))
        parts = []
        for batch, samples in self._data:
            outputs = keras.tree.flatten(self._run(list(batch)))
            parts.append([each[:samples] for each in outputs])
        return {
            name: np.concatenate(each)
            for name, each in zip(self._names, zip(*parts, strict=True), strict=True)
        }


def _noise(exact: np.ndarray, found: np.ndarray) -> float:
    """Returns the power of the difference, divided by the power of the exact values."""
    exact = exact.astype("float64")
    signal, noise = np.sum(exact**2), np.sum((found - exact) ** 2)
    return float(noise / signal) if signal else (math.inf if noise else 0.0)


def _joined(*parts: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts])
