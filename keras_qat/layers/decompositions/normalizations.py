"""Layer, group, RMS and unit normalization, written as `Normalize` and arithmetic with weights.

`write_affines` combines the arithmetic into one factor and one offset for each channel, if the
weights have such a shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.normalize import LARGEST_GROUP, parts_of
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers.core.registry import register
from keras_qat.layers.decompositions.normalize import Normalize
from keras_qat.layers.moving.reshape import batch_moved

_HIGHEST_RANK = 4


@register(keras.layers.LayerNormalization)
def layer_normalized(layer: Any, inputs):
    """Computes `(inputs - mean) / sqrt(variance + epsilon) * gamma + beta`."""
    if layer.rms_scaling:
        raise UnsupportedLayerError(
            "The deprecated `rms_scaling` divides by the standard deviation and keeps the mean.",
            layer=layer.name,
            received="rms_scaling=True",
            fix="Use keras.layers.RMSNormalization.",
        )
    y = normalized(layer.name, inputs, layer.axis, "layer", layer.epsilon)
    return _scaled(y, _along(layer.gamma, y, layer.axis), _along(layer.beta, y, layer.axis))


@register(keras.layers.RMSNormalization)
def rms_normalized(layer: Any, inputs):
    """Computes `inputs / sqrt(mean(inputs**2) + epsilon) * scale`."""
    y = normalized(layer.name, inputs, layer.axis, "rms", layer.epsilon)
    # Keras aligns the factors with the last axes, whatever the axes are.
    return _scaled(y, _along(layer.scale, y, range(-len(layer.scale.shape), 0)), None)


@register(keras.layers.UnitNormalization)
def unit_normalized(layer: Any, inputs):
    """Computes `inputs / max(norm(inputs), epsilon)`."""
    return normalized(layer.name, inputs, layer.axis, "unit", 1e-12)


@register(keras.layers.GroupNormalization)
def group_normalized(layer: Any, inputs):
    """Applies layer normalization over all axes but the batch and the groups."""
    rank = len(inputs.shape)
    channels = layer.axis % rank
    grouped = list(inputs.shape)
    grouped[channels : channels + 1] = layer.groups, inputs.shape[channels] // layer.groups
    axes = [axis for axis in range(1, rank + 1) if axis != channels]
    normalize = _normalize(layer.name, inputs.shape, grouped, axes, "layer", layer.epsilon)
    y = normalize(inputs)
    return _scaled(y, *(_along(weight, y, channels) for weight in (layer.gamma, layer.beta)))


def normalized(name: str, x: Any, axis: int | Sequence[int], kind: str, epsilon: float):
    """Applies `Normalize` over axes of a tensor.

    Args:
        name: Name of the calling layer, for errors.
        x: Symbolic tensor.
        axis: The axes of `x` that a group extends over.
        kind: As in `Normalize`.
        epsilon: As in `Normalize`.

    Returns:
        Symbolic tensor like `x`.

    Raises:
        UnsupportedLayerError: If the batch is among the axes, a group is too large, or the axes
            are too scattered.
    """
    axes = sorted(each % len(x.shape) for each in np.atleast_1d(axis).tolist())
    return _normalize(name, x.shape, x.shape, axes, kind, epsilon)(x)


def _normalize(
    name: str,
    shape: Sequence[int | None],
    grouped: Sequence[int | None],
    axes: Sequence[int],
    kind: str,
    epsilon: float,
) -> Normalize:
    if 0 in axes:
        raise batch_moved(name, f"axes {axes} of {len(shape)} axes")
    view, reduced = _view(grouped, axes)
    count = math.prod(view[axis] for axis in reduced)
    if count > LARGEST_GROUP or parts_of(count) is None or len(view) > _HIGHEST_RANK:
        raise UnsupportedLayerError(
            "The sums of this normalization do not fit LiteRT's int32 operators.",
            layer=name,
            received=f"axes {axes} of shape {tuple(grouped)}: {count} values, viewed as {view}",
            expected=f"at most {LARGEST_GROUP} values, and {_HIGHEST_RANK} axes after merging; "
            "more than 32768 values must be divisible into 2 to 64 equal parts of at most 32768",
            fix="Normalize over fewer or adjacent axes.",
        )
    return Normalize(view, reduced, kind, epsilon, name="normalized", dtype="float32")


def _view(shape: Sequence[int | None], axes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Merges neighbouring axes that are both reduced or both kept. Drops axes of size 1."""
    view, reduced, before = [-1], [], False
    for axis, size in enumerate(shape[1:], start=1):
        assert size is not None  # inputs of models have fixed sizes
        is_reduced = axis in axes
        if size == 1 and not is_reduced:
            continue
        if is_reduced != before:
            view.append(size)
        elif len(view) > 1:
            view[-1] *= size
        if is_reduced and not before:
            reduced.append(len(view) - 1)
        before = is_reduced
    return view, reduced


def _along(weight: Any, x: Any, axis: int | Sequence[int]):
    """Returns a weight with as many axes as a tensor, or None. Keras sorts the axes first."""
    if weight is None:
        return None
    shape = [1] * len(x.shape)
    for each, size in zip(np.atleast_1d(axis).tolist(), weight.shape, strict=True):
        shape[each] = size
    return ops.reshape(weight, shape)


def _scaled(x, factor, offset):
    if factor is not None:
        x = ops.multiply(x, factor)
    return x if offset is None else ops.add(x, offset)
