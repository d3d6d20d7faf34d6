"""Statistics of two models' predictions: accuracy or error, agreement, difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_qat_cli.errors import UsageError
from keras_qat_cli.models import outputs_by_name


class Tally:
    """Statistics over all batches.

    Attributes:
        samples: The number of samples.
        predictions: The number of predictions of all outputs.
        agreeing: The number of predictions that are the same.
        largest_difference: The largest difference between the outputs.
    """

    def __init__(self):
        self.samples = self.predictions = self.agreeing = 0
        self.largest_difference = 0.0
        self._labelled = self._values = 0
        self._are_classes = True
        self._correct = [0, 0]
        self._error = [0.0, 0.0]

    @property
    def agreement(self) -> float | None:
        """The share of equal predictions. None if the predictions are not classes."""
        return self.agreeing / self.predictions if self._are_classes else None

    def accuracies(self) -> list[float | None]:
        """The accuracy of each model. None without targets, or if targets are not classes."""
        if not self._labelled or not self._are_classes:
            return [None, None]
        return [correct / self._labelled for correct in self._correct]

    def errors(self) -> list[float | None]:
        """The mean absolute error of each model. None if the targets are classes."""
        return [None, None] if self._are_classes else [part / self._values for part in self._error]

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics that concern both models."""
        return {
            "samples": self.samples,
            "agreement": self.agreement,
            "largest_difference": self.largest_difference,
        }

    def add(self, outputs: list[Any], targets: Any) -> None:
        """Adds a batch to the statistics.

        Args:
            outputs: The outputs of both models.
            targets: The targets, or None.

        Raises:
            UsageError: If outputs and targets do not fit together.
        """
        pairs = _paired(*outputs)
        self.samples += len(pairs[0][0])
        for one, other in pairs:
            same = _classes(one) == _classes(other)
            self.predictions += same.size
            self.agreeing += int(same.sum())
            gap = np.abs(one.astype("float64") - other).max(initial=0.0)
            self.largest_difference = max(self.largest_difference, float(gap))
        if targets is None:
            return
        if len(pairs) > 1:
            raise UsageError(
                "The accuracy of several outputs is not one number.",
                fix="Give data without targets.",
            )
        self._compare(pairs[0], _numbers(targets))

    def _compare(self, outputs: tuple[Any, Any], targets: Any) -> None:
        """Counts correct classes, and adds up the absolute errors of values."""
        wanted = _labels(targets, outputs[0])
        self._are_classes &= wanted is not None
        if wanted is not None:
            self._labelled += wanted.size
            for i, output in enumerate(outputs):
                self._correct[i] += int((_classes(output) == wanted).sum())
        if targets.size == outputs[0].size:
            self._values += targets.size
            for i, output in enumerate(outputs):
                self._error[i] += float(np.abs(output - targets.reshape(output.shape)).sum())


def _paired(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Pairs the outputs of both models, by name if the names are the same, else in order."""
    one, other = outputs_by_name(first), outputs_by_name(second)
    names = list(one) if one.keys() == other.keys() else list(other)
    pairs = list(zip(one.values(), (other[name] for name in names), strict=False))
    if len(one) != len(other) or any(a.shape != b.shape for a, b in pairs):
        raise UsageError(
            "The models have different outputs.",
            received=" and ".join(
                str({name: x.shape for name, x in outputs.items()}) for outputs in (one, other)
            ),
        )
    return pairs


def _numbers(targets: Any) -> Any:
    """Returns the targets of one output as an array of finite numbers."""
    if isinstance(targets, Mapping) and len(targets) == 1:
        (targets,) = targets.values()
    array = np.asarray(targets)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise UsageError(
            "The targets are not finite numbers.",
            received=f"{array.dtype}, such as {array.ravel()[:3].tolist()}",
            expected="numbers of classes, one-hot classes, or values",
        )
    return array


def _classes(output: Any) -> Any:
    """Returns the predicted classes: the largest of several values, or one value above 0.5."""
    output = output if output.ndim > 1 else output[:, None]
    if output.shape[-1] > 1:
        return np.argmax(output, axis=-1)
    return (output[..., 0] > 0.5).astype("int64")


def _labels(targets: Any, output: Any) -> Any:
    """Returns targets as class numbers. Targets may be one-hot, or have a last axis of one.

    Args:
        targets: An array of numbers.
        output: The output to which the targets belong.

    Returns:
        The classes. None if the targets are values instead of classes.
    """
    shape = output.shape[:-1] if output.ndim > 1 else output.shape
    count = output.shape[-1] if output.ndim > 1 else 1
    if count > 1 and targets.shape == output.shape:
        one_hot = (targets >= 0).all() and np.allclose(targets.sum(-1), 1, atol=1e-3)
        return np.argmax(targets, axis=-1) if one_hot else None
    if targets.shape not in (shape, (*shape, 1)):
        raise UsageError(
            "The targets do not fit the outputs.",
            received=f"targets of shape {targets.shape}, outputs of {output.shape}",
            expected=f"numbers of classes of shape {shape}, or one-hot {output.shape}",
        )
    classes = targets.reshape(shape)
    if np.isin(classes, np.arange(max(count, 2))).all():
        return classes
    if count == 1:
        return None
    raise UsageError(
        "The targets are not the classes of the model.",
        received=f"targets from {classes.min():g} to {classes.max():g}",
        expected=f"whole numbers from 0 to {count - 1}",
    )
