"""Folds the operations around a kernel into it: a batch normalization, and an affine input."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.backend import compiled, float64, maximum
from keras_qat.layers.kernels.integer_weights import FoldedWeights, channel_shape, summed_axes
from keras_qat.layers.kernels.kernel_steps import deployed_steps


def folded_weights(layer: Any) -> FoldedWeights:
    """Returns the deployed weights in float.

    Args:
        layer: A `WeightedLayer`.
    """
    factor, kernel = _channel_factor(layer), input_kernel(layer)
    scaled = kernel * ops.reshape(factor, channel_shape(kernel, layer.channel_axes))
    terms = _bias_terms(layer, factor)
    return FoldedWeights(scaled, *terms, layer.channel_axes, deployed_steps(layer, factor))


def kernel_fold(layer: Any) -> Any:
    """Returns the factor of the batch normalization, to broadcast against the kernel.

    The folded weights of a channel with gamma = 0 are 0. Its own weights keep the gradient alive.

    Args:
        layer: A `WeightedLayer`.
    """
    fold = _channel_factor(layer)
    fold = ops.stop_gradient(ops.where(ops.abs(fold) < 1e-20, ops.ones_like(fold), fold))
    return ops.reshape(fold, channel_shape(layer.kernel, layer.channel_axes))


def input_kernel(layer: Any) -> Any:
    """Returns the kernel to apply to the original input.

    Args:
        layer: A `WeightedLayer`.
    """
    kernel = ops.convert_to_tensor(layer.kernel)
    return kernel if layer.input_affine is None else layer.input_affine.scaled(kernel)


def input_shift(layer: Any) -> Any:
    """Returns the contribution of the input's offset to each output channel, or None.

    Args:
        layer: A `WeightedLayer`.
    """
    if layer.input_affine is None or not layer.input_affine.has_offset:
        return None
    axes = summed_axes(layer.kernel, layer.channel_axes)
    return layer.input_affine.shift(ops.convert_to_tensor(layer.kernel), axes)


def _channel_factor(layer: Any) -> Any:
    """Returns the factor of each channel in the folded batch normalization."""
    norm = layer.batch_normalization
    if norm is None:
        return ops.ones((_channels(layer),), "float32")
    gamma = [ops.stop_gradient(norm.gamma)] if norm.scale else []
    return _normalizing_factor(norm.moving_variance, *gamma, epsilon=norm.epsilon)


@compiled
def _normalizing_factor(variance, *gamma, epsilon: float):
    # Float64 is used because float32 roots and quotients of GPUs are wrong in their last bits.
    with float64():
        deviation = maximum(ops.sqrt(ops.cast(variance, "float64") + epsilon), 1e-12)
        numerator = ops.cast(gamma[0], "float64") if gamma else 1.0
        return ops.cast(numerator / deviation, "float32")


def _bias_terms(layer: Any, factor: Any) -> tuple[Any, Any]:
    """Returns the folded bias as two terms. Their sum in float would depend on the compiler."""
    zeros = ops.zeros((_channels(layer),), "float32")
    bias = layer.bias if layer.use_bias else zeros
    shift = input_shift(layer)
    bias = bias if shift is None else bias + shift
    norm = layer.batch_normalization
    if norm is None:
        return ops.convert_to_tensor(bias), zeros
    beta = norm.beta if norm.center else zeros
    return ops.convert_to_tensor(beta), (bias - norm.moving_mean) * factor


def _channels(layer: Any) -> int:
    return int(np.prod([layer.kernel.shape[axis] for axis in layer.channel_axes]))
