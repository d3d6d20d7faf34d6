"""Batch normalization as Keras computes it, by the fastest kernel of the backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.backend import batch_moments, fused_batch_norm, has_processes, traced_once


def normalized(norm: Any, x: Any, training: bool | None) -> Any:
    """Calls a batch normalization.

    Args:
        norm: A built `BatchNormalization`, or a layer in its place.
        x: float32 tensor.
        training: Whether it normalizes with the statistics of the batch, and keeps their moving
            averages.

    Returns:
        A tensor of the shape of `x`. Results and moving averages equal those of `norm` up to the
        rounding of float32.

    Example:
    >>> norm = keras.layers.BatchNormalization()
    >>> norm.build((None, 1))
    >>> normalized(norm, ops.array([[-1.0], [1.0]]), training=True).numpy().round(2).tolist()
    [[-1.0], [1.0]]
    """
    is_of_batch = training and norm.trainable
    found = (_fused(norm, x) or _over_processes(norm, x)) if is_of_batch else None
    if found is None:
        return norm(x, training=training)
    y, *statistics = found
    averages = norm.moving_mean, norm.moving_variance
    moved = _moved(*averages, *statistics, momentum=float(norm.momentum))
    for average, value in zip(averages, moved, strict=True):
        average.assign(value)
    return y


@traced_once
def _moved(mean, variance, batch_mean, batch_variance, *, momentum):
    """Returns the moving averages after a batch."""
    rate = 1.0 - momentum
    return mean * momentum + batch_mean * rate, variance * momentum + batch_variance * rate


def _fused(norm: Any, x: Any) -> tuple[Any, Any, Any] | None:
    """Returns the result, the mean and the variance; None for what the kernel does not compute."""
    is_plain = type(norm) is keras.layers.BatchNormalization and norm.compute_dtype == "float32"
    if not is_plain or norm.synchronized or getattr(norm, "renorm", False):
        return None
    if norm.axis not in (-1, len(x.shape) - 1):
        return None
    channels = (x.shape[-1],)
    gamma = ops.ones(channels) if norm.gamma is None else norm.gamma
    beta = ops.zeros(channels) if norm.beta is None else norm.beta
    return fused_batch_norm(x, gamma, beta, norm.epsilon)


def _over_processes(norm: Any, x: Any) -> tuple[Any, Any, Any] | None:
    """Returns the result, the mean and the variance of all processes; None if there is only one."""
    is_norm = isinstance(norm, keras.layers.BatchNormalization)
    if not is_norm or not has_processes() or isinstance(x, keras.KerasTensor):
        return None
    axis = norm.axis % len(x.shape)
    axes = [each for each in range(len(x.shape)) if each != axis]
    mean, variance = batch_moments(x, axes, synchronized=True)
    y = ops.batch_normalization(x, mean, variance, axis, norm.beta, norm.gamma, norm.epsilon)
    return y, ops.stop_gradient(mean), ops.stop_gradient(variance)
