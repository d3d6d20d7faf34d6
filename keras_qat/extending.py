"""Models of new layers on the tensors of a quantized model."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph.reading import is_model, read_model
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.drop_in import copy_by_path
from keras_qat.layers.core.held_ranges import hold_ranges, holds_ranges
from keras_qat.passes.config import Config
from keras_qat.passes.overrides import as_mapping
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.stripping import strip_quantization


def is_extended(model: keras.Model) -> bool:
    """Returns whether a model has layers of a quantized model, and other layers.

    Args:
        model: A Keras model.

    Example:
    >>> is_extended(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    False
    """
    if not is_model(model):
        return False
    nodes = read_model(model).nodes.values()
    heads = [node.head for node in nodes if not node.is_input]
    quantized = [head for head in heads if getattr(head, "scheme", None) is not None]
    return any(isinstance(head, QuantizedLayer) for head in quantized) and any(
        not isinstance(head, QuantizedLayer) and not is_model(head) for head in heads
    )


def in_float(model: keras.Model, config: Config) -> tuple[keras.Model, Config]:
    """Returns an extended model with its quantized layers in float again, and their schemes.

    Args:
        model: A model that `is_extended`.
        config: The configuration of the new model.

    Returns:
        The float model, and a configuration in which the layers have the schemes that they had.
    """
    source = strip_quantization(model)
    names = {layer.name for layer in source.layers}
    if config.scheme is None:
        return source, config
    schemes = {each.name: each.scheme and _whole(each.scheme) for each in _quantized_layers(model)}
    others = {n: own for n, own in schemes.items() if n in names and own != config.scheme}
    if not others:
        return source, config
    wanted = as_mapping(config.overrides or {}, read_model(source))
    return source, dataclasses.replace(config, overrides={**others, **wanted})


def carry_ranges(model: keras.Model, new: keras.Model) -> None:
    """Copies the ranges of an extended model to a quantized one.

    Args:
        model: A model that `is_extended`.
        new: The quantized model. Its layers have the names of the old ones.
    """
    made = {layer.name: layer for layer in _quantized_layers(new)}
    for layer in _quantized_layers(model):
        same = made.get(layer.name)
        if same is None:
            continue
        if layer.range_rule is not None:
            same.set_range_rule(layer.range_rule)
        own = same.observers()
        for name in layer.observers().keys() & own.keys():
            copy_by_path(layer.observers()[name], own[name])
        if holds_ranges(layer):
            hold_ranges(same)
        steps = getattr(layer, "weight_range", None), getattr(same, "weight_range", None)
        if None not in steps and layer.weight_range_rule == same.weight_range_rule:
            copy_by_path(*steps)


def _whole(scheme: Scheme) -> Scheme:
    """Returns the scheme that a layer was made with, whose weights may be wider in the layer."""
    return get_scheme(scheme.name).with_storage(scheme.storage)


def _quantized_layers(model: keras.Model) -> list[QuantizedLayer]:
    return [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
