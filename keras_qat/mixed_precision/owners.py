"""The layers of the user to which the quantized layers belong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from keras_qat.graph import Graph, Node, read_model
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.boundary.quantize import BoundaryLayer
from keras_qat.layers.core.moves_values import moves_plain
from keras_qat.passes.inline_models import inline_models


@dataclasses.dataclass(frozen=True)
class Owner:
    """A layer of the user, and the quantized layers that compute it.

    Attributes:
        name: Name of the user's layer, a key of `overrides`.
        origins: Names of all layers of the user that the quantized layers compute.
        layers: Names of the quantized layers.
    """

    name: str
    origins: tuple[str, ...]
    layers: tuple[str, ...]


def names_of(source: Graph) -> dict[str, str]:
    """Returns the names of operations by the names of their calls, which origins have.

    Args:
        source: The user's model, as it was read. The second call of a layer has another name than
            the layer.
    """
    return {name: node.head.name for name, node in inline_models(source).nodes.items()}


def owners_of(model: QuantizedModel, names: Mapping[str, str]) -> list[Owner]:
    """Returns the layers of the user that quantization changes, in the order of the model.

    Layers that only move values have no rounding of their own, and are left out. So are the
    quantizations of inputs, which depend on the layers after them.

    Args:
        model: A quantized model.
        names: The result of `names_of`; empty for a model without its source.
    """
    found: dict[str, tuple[dict[str, None], list[str]]] = {}
    for node in _rounding(model):
        layer = node.head.name
        origins = model.origins.get(layer) or (layer,)
        own = layer if layer in origins else origins[0]
        known, layers = found.setdefault(names.get(own, own), ({}, []))
        known.update(dict.fromkeys(names.get(each, each) for each in origins))
        if layer not in layers:
            layers.append(layer)
    return [Owner(name, tuple(known), tuple(made)) for name, (known, made) in found.items()]


def _rounding(model: QuantizedModel) -> Iterator[Node]:
    """Yields the nodes whose integers differ from their values in float."""
    for node in read_model(model).nodes.values():
        layer = node.head
        if not isinstance(layer, QuantizedLayer) or layer.scheme is None or moves_plain(node):
            continue
        is_boundary = isinstance(layer, BoundaryLayer) or not layer.makes_operator
        if layer.plain_dtype is None and not is_boundary:
            yield node
