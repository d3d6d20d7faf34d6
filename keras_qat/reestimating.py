"""reestimate_batch_norm: statistics of batch normalizations from data, with quantized weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.data.batches import batches
from keras_qat.errors import NotQuantizedError
from keras_qat.layers.kernels.batch_normalization import batch_norm_of
from keras_qat.layers.models.wrapped import quantized_model_in


def reestimate_batch_norm(model: keras.Model, data: Any, steps: int | None = None) -> None:
    """Computes the statistics of all batch normalizations anew, with quantized weights.

    Moving averages of a training lag behind weights that oscillate between integers. Each mean and
    variance becomes that of all values on the data, computed as training computes them. Nothing
    else changes: weights, ranges, steps and states of random numbers stay. Batch normalizations
    that are fused into a layer, those that are not, and frozen ones are re-estimated.
    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
    https://arxiv.org/abs/2203.11086, section 2.3.

    Args:
        model: A model from `quantize_model`, with ranges.
        data: Data for the inputs, of the types that `calibrate` takes. A few thousand samples of
            the training data, in large batches.
        steps: The number of batches to use; None for all.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`, or has no batch
            normalization.
        MissingRangeError: If tensors lack min/max data.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite.

    Example:
    >>> import keras, keras_qat
    >>> dense = keras.layers.Dense(1, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((2,)), dense, keras.layers.BatchNormalization()])
    >>> data = np.array([[1.0, 2.0], [3.0, 2.0]], "float32")
    >>> qat = keras_qat.quantize_model(model, default_ranges_stats=(-8, 8))
    >>> reestimate_batch_norm(qat, data)
    >>> round(float(qat.layers[-1].batch_normalization.moving_mean[0]))
    4
    """
    model = quantized_model_in(model, "re-estimated")
    norms = [norm for layer in model.layers if (norm := batch_norm_of(layer)) is not None]
    if not norms:
        raise NotQuantizedError(
            "The model has no batch normalization of a quantized or cloned layer.",
            layer=model.name,
            received="a model without batch normalizations",
            fix="Leave the call out.",
        )
    model.check_ranges()
    sums = [np.zeros((2, norm.moving_mean.shape[0])) for norm in norms]
    samples = 0
    with _statistics_of_each_batch(model, norms):
        for batch in batches(data, model, steps=steps):
            inputs = list(batch)
            model(inputs if len(inputs) > 1 else inputs[0], training=True)
            samples += len(inputs[0])
            for norm, total in zip(norms, sums, strict=True):
                total += len(inputs[0]) * _moments(norm)
    for norm, (first, second) in zip(norms, sums, strict=True):
        mean = first / samples
        norm.moving_mean.assign(mean.astype("float32"))
        norm.moving_variance.assign((second / samples - mean**2).astype("float32"))


@contextlib.contextmanager
def _statistics_of_each_batch(model: Any, norms: list[Any]) -> Iterator[None]:
    """Makes the moving averages those of the last batch, and restores all else afterwards."""
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    settings = [(norm, norm.momentum, norm.trainable) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.trainable = 0.0, True
        yield
    finally:
        for norm, momentum, trainable in settings:
            norm.momentum, norm.trainable = momentum, trainable
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)


def _moments(norm: Any) -> np.ndarray:
    """Returns the mean and the mean square of the last batch, of shape (2, channels)."""
    mean, variance = (
        ops.convert_to_numpy(each).astype("float64")
        for each in (norm.moving_mean, norm.moving_variance)
    )
    return np.stack([mean, variance + mean**2])
