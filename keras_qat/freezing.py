"""freeze_batch_norm: trains with the statistics of inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_qat.errors import NotQuantizedError
from keras_qat.layers.kernels.batch_normalization import batch_norm_of


def freeze_batch_norm(model: keras.Model) -> None:
    """Makes the batch normalizations of a quantized model compute at training as at inference.

    Moving statistics, factors and offsets do not change, as after `trainable = False` of a
    `keras.layers.BatchNormalization`. Saved models keep this. Call `compile` again after it.

    Args:
        model: A model from `quantize_model` or `clone_model`, or a model that contains one.

    Raises:
        NotQuantizedError: If the model has no such batch normalization.
    """
    _set_trainable(model, False)


def unfreeze_batch_norm(model: keras.Model) -> None:
    """Lets the batch normalizations of a quantized model train again, see `freeze_batch_norm`.

    Batch normalizations in layers with `trainable=False` stay frozen. Call `compile` again
    afterwards.

    Args:
        model: As for `freeze_batch_norm`.

    Raises:
        NotQuantizedError: If the model has no such batch normalization.
    """
    _set_trainable(model, True)


def _set_trainable(model: keras.Model, value: bool) -> None:
    found = list(_batch_norms(model))
    if not found:
        raise NotQuantizedError(
            "The model has no batch normalization of a quantized or cloned layer.",
            layer=getattr(model, "name", None),
            received=f"a {type(model).__name__}",
            fix="Pass a model from `keras_qat.quantize_model` or `keras_qat.clone_model`. In a "
            "plain Keras model set `trainable` of its `BatchNormalization` layers.",
        )
    for layer, norm in found:
        norm.trainable = value and (norm is layer or layer.trainable)
    model.make_train_function(force=True)  # the old function updates the old trainable variables


def _batch_norms(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each batch normalization with its layer, also those in nested models."""
    for layer in getattr(model, "layers", ()):
        yield from _batch_norms(layer)
        norm = batch_norm_of(layer)
        if norm is not None:
            yield layer, norm
