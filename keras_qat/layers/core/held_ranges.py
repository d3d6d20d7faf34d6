"""The ranges of a layer that training does not change any more."""

from __future__ import annotations

from typing import Any


def hold_ranges(layer: Any) -> None:
    """Ends the training of a layer's ranges: observed ones, learned ones, and steps of weights.

    Saved models keep this. A change of `trainable` of the layer ends it.

    Args:
        layer: A built `QuantizedLayer`.
    """
    for each in _ranges(layer):
        each.trainable = False


def holds_ranges(layer: Any) -> bool:
    """Returns whether training changes the layer, but none of its ranges.

    Args:
        layer: A `QuantizedLayer`.
    """
    if not layer.built:
        return not layer.trains_ranges
    own = _ranges(layer)
    return bool(own) and layer.trainable and not any(each.trainable for each in own)


def _ranges(layer: Any) -> list[Any]:
    """Returns the observers of a layer, and the steps of its weights."""
    steps = getattr(layer, "weight_range", None)
    return [*layer.observers().values(), *([] if steps is None else [steps])]
