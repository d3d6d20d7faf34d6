"""The observers of a layer's tensors, made from the specifications of the tensors."""

from __future__ import annotations

from typing import Any

from keras_qat.quantizers import RangeObserver, Specification, make_observers


def observed_specifications(layer: Any) -> dict[str, Specification]:
    """Returns the specifications of the tensors that are observed, by the names of the tensors.

    Args:
        layer: A `QuantizedLayer`.
    """
    own = {} if layer.scheme is None else layer.specifications()
    known = ((tensor, each) for tensor, each in own.items() if each is not None)
    return {tensor: each for tensor, each in known if each.observed is not None}


def build_observers(layer: Any) -> None:
    """Makes the observers of a layer, as attributes of it.

    Args:
        layer: A `QuantizedLayer`.
    """
    made = make_observers(observed_specifications(layer), layer.range_rule, layer.learns_range)
    for tensor, observer in made.items():
        setattr(layer, _attribute(tensor), observer)
        observer.build()
        observer.trainable = layer.trainable and layer.trains_ranges


def observers_of(layer: Any) -> dict[str, RangeObserver]:
    """Returns the observers of a layer, by the names of their tensors.

    Args:
        layer: A `QuantizedLayer`.
    """
    found = {name: getattr(layer, _attribute(name), None) for name in layer.specifications()}
    return {name: observer for name, observer in found.items() if observer is not None}


def _attribute(tensor: str) -> str:
    """Returns the attribute that holds a tensor's observer: saved weights have its name."""
    return "observer" if tensor == "output" else f"{tensor}_observer"
