"""Files for one batch size: fast kernels run operators there that they leave in other files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_qat.layers.kernels.weighted import WeightedLayer


def set_fixed_batch(model: keras.Model, is_fixed: bool) -> None:
    """Sets whether the file of a model is for one batch size. Only inference depends on it.

    Args:
        model: A quantized model.
        is_fixed: Whether the file has one batch size.
    """
    changed = [layer for layer in _depending(model) if layer.fixed_batch != is_fixed]
    for layer in changed:
        layer.fixed_batch = is_fixed
    if changed:
        model.predict_function = model.test_function = None


@contextlib.contextmanager
def fixed_batch(model: keras.Model, is_fixed: bool) -> Iterator[None]:
    """Sets whether the file of a model is for one batch size, and restores it afterwards.

    Args:
        model: A quantized model.
        is_fixed: Whether the file has one batch size.
    """
    before = {layer.fixed_batch for layer in _depending(model)}
    set_fixed_batch(model, is_fixed)
    try:
        yield
    finally:
        set_fixed_batch(model, True in before)


def _depending(model: keras.Model) -> list[WeightedLayer]:
    """Returns the layers whose kernel depends on it."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, WeightedLayer) and layer.kernel_operator.needs_fixed_batch
    ]
