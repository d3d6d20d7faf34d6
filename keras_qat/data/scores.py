"""Keras losses and metrics on outputs that no Keras model computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_qat.errors import InvalidDataError


def scores(
    outputs: Mapping[str, np.ndarray], targets: Any, weights: Any, metrics: Any, loss: Any
) -> dict[str, float]:
    """Computes losses and metrics of outputs as `keras.Model.evaluate` does.

    Args:
        outputs: The values of each output by name.
        targets: The targets. For several outputs a dict by name, or a list in order.
        weights: Sample weights, or None.
        metrics: Metrics as `keras.Model.compile` takes them.
        loss: A loss in the same form, or None.

    Returns:
        The metrics by name, and `"loss"` if there is one.

    Raises:
        InvalidDataError: If targets, metrics and loss do not fit the outputs.
    """
    # Tensors in files can have a slash in their names. Names of Keras layers cannot.
    names = {name: name.replace("/", "_") for name in outputs}

    def renamed(by_output):
        """Renames the outputs in a dict to names without slashes."""
        if isinstance(by_output, Mapping):
            return {names.get(name, name): value for name, value in by_output.items()}
        return by_output

    inputs = {
        names[name]: keras.Input(x.shape[1:], name=names[name]) for name, x in outputs.items()
    }
    values, single = renamed(outputs), len(outputs) == 1
    if single:
        (inputs,), (values,) = inputs.values(), values.values()
    elif isinstance(targets, list | tuple) and len(targets) == len(names):
        targets = dict(zip(outputs, targets, strict=True))
    # A model that returns its inputs lets Keras interpret the names of metrics.
    model = (_WithoutLoss if loss is None else keras.Model)(inputs, inputs)
    try:
        model.compile(loss=renamed(loss), metrics=renamed(metrics), run_eagerly=True)
        results = model.evaluate(
            values, renamed(targets), sample_weight=weights, verbose=0, return_dict=True
        )
    except Exception as error:  # Keras and its backends raise various types here
        raise InvalidDataError(
            "Keras cannot compute the loss and the metrics.",
            received=f"outputs of shape {[array.shape for array in outputs.values()]}, targets of "
            f"{keras.tree.map_structure(np.shape, targets)}: {error}",
            fix="Give targets, metrics and a loss that go with the outputs; of several "
            f"outputs by name: {list(outputs)}.",
        ) from error
    kept = {name: float(value) for name, value in results.items()}
    if loss is None:
        kept.pop("loss", None)
    return kept


class _WithoutLoss(keras.Model):
    """A model that Keras can evaluate without a loss."""

    def compute_loss(self, *args, **kwargs):
        return 0.0
