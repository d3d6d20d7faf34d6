"""The steps of a layer's kernel, for range rules that clip or learn."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_qat.layers.kernels.integer_weights import (
    channel_shape,
    least_scale_for_sums,
    scaled_axes,
    sums_fit,
)
from keras_qat.quantizers import WeightRange, clip_weights, fake_quantize_weights, weight_grid


def make_weight_range(layer: Any) -> WeightRange | None:
    """Makes the variables of a layer's steps.

    Args:
        layer: A built `WeightedLayer`.

    Returns:
        None if the steps follow from the extremes, as those of a kernel that is not a variable do.
    """
    rule = layer.weight_range_rule
    is_own = layer.scheme is not None and isinstance(layer.kernel, keras.Variable)
    if not is_own or not rule.has_weight_steps:
        return None
    made = WeightRange(rule, _steps_shape(layer), name="weight_range")
    made.build()
    made.trainable = layer.trainable and layer.trainable_kernel and layer.trains_ranges
    return made


def fit_steps(layer: Any, kernel: Any, fold: Any) -> None:
    """Sets the steps of a kernel by the range rule of the layer.

    Args:
        layer: A `WeightedLayer`.
        kernel: float32 tensor, the folded kernel.
        fold: float32 tensor, the factor of each channel, not 0.
    """
    if layer.weight_range is not None:
        layer.weight_range.fit(kernel, step_factor(layer, fold), _axes(layer), layer.scheme)


def trained_kernel(layer: Any, kernel: Any, fold: Any) -> Any:
    """Rounds a kernel in a training step, and moves its steps.

    Args:
        layer: A `WeightedLayer`.
        kernel: float32 tensor, the kernel before it is folded.
        fold: float32 tensor that broadcasts against the kernel, the factor of each channel, not 0.

    Returns:
        float32 tensor of the shape of `kernel`. Times `fold` it is on the grid of the file.
    """
    scheme, axes, channels = layer.scheme, _axes(layer), layer.channel_axes
    if layer.weight_range is None and sums_fit(kernel, channels, scheme):
        return fake_quantize_weights(kernel, axes, scheme, factor=fold)
    folded = kernel * fold
    fixed = ops.stop_gradient(folded)
    least = least_scale_for_sums(fixed, channels, scheme)
    if layer.weight_range is None:
        return fake_quantize_weights(kernel, axes, scheme, factor=fold, least_scale=least)
    grid = weight_grid(fixed, axes, scheme, least, _trained_steps(layer, fixed, fold))
    return clip_weights(folded, grid) / fold


def _trained_steps(layer: Any, kernel: Any, fold: Any) -> Any:
    """Moves the steps of a kernel in a training step.

    Args:
        layer: A `WeightedLayer`.
        kernel: As in `fit_steps`, without a gradient.
        fold: As in `fit_steps`.

    Returns:
        The steps of the folded kernel, with a gradient if the rule learns. Frozen steps stay.
    """
    size = step_factor(layer, fold)
    if layer.weight_range.trainable:
        layer.weight_range.track(kernel, size, _axes(layer), layer.scheme)
    count = math.prod(layer.kernel.shape) // math.prod(_steps_shape(layer))
    return layer.weight_range.trained(size, count, layer.scheme)


def deployed_steps(layer: Any, factor: Any) -> Any:
    """Returns the steps of the deployed kernel, or None if they follow from the extremes.

    Args:
        layer: A `WeightedLayer`.
        factor: float32 tensor, the factor of each channel.
    """
    known = layer.weight_range
    return None if known is None else known.current(step_factor(layer, factor))


def step_factor(layer: Any, fold: Any) -> Any:
    """Returns the factor by which a folded batch normalization changes the steps of a kernel.

    Args:
        layer: A `WeightedLayer`.
        fold: float32 tensor, the factor of each channel.

    Returns:
        float32 tensor that broadcasts with the steps. It is the largest factor for a kernel with
        one step for all channels.
    """
    sizes = ops.abs(ops.reshape(fold, channel_shape(layer.kernel, layer.channel_axes)))
    return sizes if layer.scheme.weight_per_channel else ops.max(sizes)


def weight_rule_config(layer: Any) -> dict[str, Any]:
    """Returns the argument that the range rule of a layer is saved as.

    Args:
        layer: A `WeightedLayer`.
    """
    rule = layer.weight_range_rule
    if layer.scheme is None or not rule.has_weight_steps:
        return {}
    return {"weight_range_rule": keras.saving.serialize_keras_object(rule)}


def _axes(layer: Any) -> tuple[int, ...] | None:
    return scaled_axes(layer.kernel, layer.channel_axes, layer.scheme)


def _steps_shape(layer: Any) -> tuple[int, ...]:
    if layer.scheme.weight_per_channel:
        return channel_shape(layer.kernel, layer.channel_axes)
    return (1,) * len(layer.kernel.shape)
