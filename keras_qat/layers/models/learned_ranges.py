"""The trained variables of ranges, which weight decay must not change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.kernels.weighted import WeightedLayer


def learned_ranges(model: keras.Model) -> list[Any]:
    """Returns the variables by which training learns ranges, of activations and of weights.

    Args:
        model: A model of quantized layers.

    Example:
    >>> import keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> qat = keras_qat.quantize_model(model, range_rule="lsq", weight_range_rule="lsq")
    >>> [variable.path for variable in learned_ranges(qat)]
    ['head/range/factors', 'head/weight_range/factor']
    """
    return [variable for variable in _factors(model) if variable is not None]


def _factors(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, QuantizedLayer):
            yield from (observer.factors for observer in layer.observers().values())
        if isinstance(layer, WeightedLayer) and layer.weight_range is not None:
            yield layer.weight_range.factor
