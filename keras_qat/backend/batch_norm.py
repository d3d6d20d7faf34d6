"""Batch normalization with the statistics of the batch, in one kernel."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.backend.tracing import traced_once

# Smaller ones are raised by kernels of GPUs.
_LEAST_EPSILON = 1.001e-5


def fused_batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any] | None:
    """Normalizes each channel with the mean and the variance of a batch.

    Keras computes the mean, the variance and the result by several operations, and TensorFlow
    derives a gradient of each. Here there is one kernel for all, and one for the gradient.

    Args:
        x: float32 tensor of shape (batch, ..., channels).
        gamma: float32 tensor of shape (channels,), the factors.
        beta: float32 tensor of shape (channels,), the offsets.
        epsilon: What is added to the variance.

    Returns:
        The result, and without a gradient the mean and the variance, of shape (channels,). None
        where the backend has no such kernel.

    Example:
    >>> found = fused_batch_norm(keras.ops.array([[1.0], [3.0]]), [1.0], [0.0], 1e-3)
    >>> found is None or found[1].numpy().tolist()  # the mean, with TensorFlow
    [2.0]
    """
    is_tensorflow = keras.backend.backend() == "tensorflow"
    if not is_tensorflow or isinstance(x, keras.KerasTensor) or epsilon < _LEAST_EPSILON:
        return None
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    empty = tf.zeros((0,), "float32")
    images = x if x.shape.rank == 4 else tf.reshape(x, (-1, 1, 1, x.shape[-1]))
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon
    )
    variance = _of_batch(tf.stop_gradient(variance), tf.size(x))
    y = y if x.shape.rank == 4 else tf.ensure_shape(tf.reshape(y, tf.shape(x)), x.shape)
    return y, tf.stop_gradient(mean), variance


@traced_once
def _of_batch(variance, size):
    """Returns the variance of a batch of `size` values, from the estimate of that of all data."""
    count = keras.ops.cast(size, "float32") / keras.ops.cast(keras.ops.size(variance), "float32")
    return variance * ((count - 1.0) / count)
