"""Folds the operations around a kernel into it: a batch normalization, and an affine input."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.backend import compiled, float64, maximum, read, traced_once
from keras_qat.layers.kernels.integer_weights import FoldedWeights, channel_shape, summed_axes
from keras_qat.layers.kernels.kernel_steps import deployed_steps


def folded_weights(layer: Any) -> FoldedWeights:
    """Returns the deployed weights in float.

    Args:
        layer: A `WeightedLayer`.
    """
    factor, kernel, norm = _channel_factor(layer), input_kernel(layer), layer.batch_normalization
    zeros, bias, axes = ops.zeros((_channels(layer),), "float32"), _bias(layer), layer.channel_axes
    steps = deployed_steps(layer, factor)
    if norm is None:
        return FoldedWeights(kernel, bias, zeros, axes, steps)
    scaled, shifted = _folded(kernel, factor, bias, norm.moving_mean, channel_axes=axes)
    beta = ops.convert_to_tensor(norm.beta) if norm.center else zeros
    return FoldedWeights(scaled, beta, shifted, axes, steps)


@traced_once
def _folded(kernel, factor, bias, mean, *, channel_axes):
    """Returns the folded kernel, and the term of the bias beside the offset of the norm."""
    scaled = kernel * ops.reshape(factor, channel_shape(kernel, channel_axes))
    return scaled, (bias - mean) * factor


def kernel_fold(layer: Any) -> Any:
    """Returns the factor of the batch normalization, to broadcast against the kernel.

    The folded weights of a channel with gamma = 0 are 0. Its own weights keep the gradient alive.

    Args:
        layer: A `WeightedLayer`.
    """
    fold = _channel_factor(layer, revives=True)
    return ops.reshape(fold, channel_shape(layer.kernel, layer.channel_axes))


def input_kernel(layer: Any) -> Any:
    """Returns the kernel to apply to the original input.

    Args:
        layer: A `WeightedLayer`.
    """
    kernel = read(layer.kernel)
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


def _channel_factor(layer: Any, *, revives: bool = False) -> Any:
    """Returns the factor of each channel in the folded batch normalization, without a gradient.

    Args:
        layer: A `WeightedLayer`.
        revives: Whether the factor is 1 instead of 0.
    """
    norm = layer.batch_normalization
    if norm is None:
        return ops.ones((_channels(layer),), "float32")
    gamma = [norm.gamma] if norm.scale else []
    options = {"epsilon": norm.epsilon, "revives": revives}
    return ops.stop_gradient(_normalizing_factor(norm.moving_variance, *gamma, **options))


@compiled
def _normalizing_factor(variance, *gamma, epsilon: float, revives: bool):
    # Float64 is used because float32 roots and quotients of GPUs are wrong in their last bits.
    with float64():
        deviation = maximum(ops.sqrt(ops.cast(variance, "float64") + epsilon), 1e-12)
        numerator = ops.cast(gamma[0], "float64") if gamma else 1.0
        factor = ops.cast(numerator / deviation, "float32")
    if not revives:
        return factor
    return ops.where(ops.abs(factor) < np.float32(1e-20), ops.ones_like(factor), factor)


def _bias(layer: Any) -> Any:
    """Returns the bias of the sums, before a batch normalization."""
    bias = layer.bias if layer.use_bias else ops.zeros((_channels(layer),), "float32")
    shift = input_shift(layer)
    return ops.convert_to_tensor(bias if shift is None else bias + shift)


def _channels(layer: Any) -> int:
    return int(np.prod([layer.kernel.shape[axis] for axis in layer.channel_axes]))
