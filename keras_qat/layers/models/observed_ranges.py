"""The observed tensors of a quantized model: their names, and the ranges that they lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_qat.errors import DefaultRangesWarning, warn_user
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.models.missing_ranges import listing
from keras_qat.quantizers import Fixed, RangeObserver

# The limits of an inner tensor that an older version saved no range of.
NOT_SAVED = (0.0, 0.0)
NOT_SAVED_FIX = "Calibrate the model again, `keras_qat.calibrate(model, data)`."


def named_observers(model: keras.Model) -> Iterator[tuple[str, RangeObserver]]:
    """Yields the name and the observer of each tensor with an observed range.

    Inputs with `quantized_input_stats` have no observed range.

    A tensor between a layer's operators has the name that it has in the file.
    """
    for layer in model.layers:
        if isinstance(layer, QuantizedLayer):
            for tensor, observer in layer.observers().items():
                if not isinstance(layer.specifications()[tensor], Fixed):
                    yield tensor_name(layer.name, tensor), observer


def tensor_name(layer: str, tensor: str) -> str:
    """Returns the name of a tensor of a layer in the file: its output, or an inner tensor."""
    return layer if tensor == "output" else f"{layer}/{tensor}"


def all_observed(model: keras.Model) -> Any:
    """Whether each tensor has min/max data or a default range, as a tensor."""
    updates = [observer.updates.value for _, observer in named_observers(model)]
    return keras.ops.all(keras.ops.stack(updates) != 0) if updates else True


def tensors_without_saved_range(model: keras.Model) -> tuple[str, ...]:
    """Returns the names of inner tensors whose ranges an older version did not save.

    Args:
        model: A quantized model.
    """
    inner = ((n, each) for n, each in named_observers(model) if each.is_default)
    return tuple(name for name, observer in inner if observer.limits == NOT_SAVED)


def warn_of_ranges_not_saved(model: keras.Model) -> None:
    """Warns of inner tensors whose ranges an older version did not save.

    Args:
        model: A quantized model.
    """
    names = tensors_without_saved_range(model)
    if names:
        warn_user(f"{not_saved(names)} {NOT_SAVED_FIX}", DefaultRangesWarning)


def not_saved(names: Sequence[str]) -> str:
    """Returns the warning about tensors without a saved range.

    Args:
        names: Names of the tensors.
    """
    return (
        f"{len(names)} tensor(s) inside layers have coarser steps than necessary: "
        f"{listing(names)}. An older version of keras_qat saved the model without their ranges."
    )


def observed_layers(model: keras.Model) -> list[QuantizedLayer]:
    """Returns the layers of a model whose outputs have an observed range."""
    return [layer for layer in model.layers if getattr(layer, "observer", None) is not None]
