"""Changes the channels around a layer with a kernel, in its variables."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.layers.core.drop_in import assign_copy
from keras_qat.layers.kernels.integer_weights import channel_shape
from keras_qat.layers.kernels.weighted import WeightedLayer


def output_variables(layer: WeightedLayer) -> list[Any]:
    """Returns the variables that are proportional to the output, before the activation.

    With a batch normalization these are its factors and offsets: training normalizes the sums
    again, so that a factor in the kernel would be lost.

    Args:
        layer: A built layer.

    Returns:
        Variables. An empty list if no variable scales the output.
    """
    norm = layer.batch_normalization
    if norm is None:
        return [layer.kernel, *([layer.bias] if layer.use_bias else [])]
    if not norm.scale:
        return []
    return [norm.gamma, *([norm.beta] if norm.center else [])]


def scale_outputs(layer: WeightedLayer, factors: np.ndarray) -> None:
    """Multiplies each output channel, before the activation.

    Args:
        layer: A built layer that has `output_variables`.
        factors: float array `(channels,)`.

    Example:
    >>> import keras
    >>> from keras_qat.layers import QDense
    >>> layer = QDense(2, kernel_initializer="ones")
    >>> layer.build((None, 1))
    >>> scale_outputs(layer, np.array([2.0, 3.0]))
    >>> layer(np.ones((1, 1), "float32")).numpy().tolist()
    [[2.0, 3.0]]
    """
    for variable in output_variables(layer):
        shape = np.shape(factors)
        if len(variable.shape) > 1:
            shape = channel_shape(variable, layer.channel_axes)
        values = ops.convert_to_numpy(variable).astype("float64")
        assign_copy(variable, (values * np.reshape(factors, shape)).astype("float32"))


def scale_inputs(layer: WeightedLayer, factors: np.ndarray) -> None:
    """Multiplies the weights of each input channel.

    Args:
        layer: A built layer without `input_affine`.
        factors: float array `(channels,)`.

    Example:
    >>> from keras_qat.layers import QDense
    >>> layer = QDense(1, kernel_initializer="ones")
    >>> layer.build((None, 2))
    >>> scale_inputs(layer, np.array([2.0, 3.0]))
    >>> layer(np.ones((1, 2), "float32")).numpy().tolist()
    [[5.0]]
    """
    spread = layer.kernel_operator.spread_inputs(layer, np.asarray(factors, "float64"))
    values = ops.convert_to_numpy(layer.kernel).astype("float64")
    assign_copy(layer.kernel, (values * spread).astype("float32"))


def output_offset(layer: WeightedLayer) -> Any:
    """Returns the variable that is added to the output, before the activation.

    Args:
        layer: A built layer.

    Returns:
        The variable, of shape `(channels,)`. None for a layer without a bias, and for a batch
        normalization without an offset: training normalizes a bias before it away.
    """
    norm = layer.batch_normalization
    if norm is not None:
        return norm.beta if norm.center else None
    return layer.bias if layer.use_bias else None
