"""Writes `ops.layer_normalization` and related operations as normalization and affine function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node, Parameter, operation_named
from keras_qat.graph.penalties import regularizer_of
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.decompositions.normalizations import normalized
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.rewriting import rewrite_nodes

_NORM = operation_named("LayerNorm", "RMSNorm", "Normalize")
_KINDS = {"LayerNorm": "layer", "RMSNorm": "rms", "Normalize": "unit"}


def write_normalizations(graph: Graph) -> Graph:
    """Writes `ops.layer_normalization(x, gamma, beta)` as `Normalize` and `ChannelAffine`.

    Matches: `ops.layer_normalization`, `ops.rms_normalization` and `ops.normalize` of order 2,
    with one factor and one offset for each channel, or none.
    Builds: a `Normalize`, and a `ChannelAffine` if there are factors or offsets. Variables of a
    custom layer still train.
    Why: the Keras layers of these names become the same layers.

    Args:
        graph: The graph.

    Returns:
        A graph without these operations.

    Raises:
        UnsupportedLayerError: If factors or offsets are tensors of the model, or differ along
            other axes than the last one.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        head = node.head
        if not _NORM(head) or getattr(head, "rms_scaling", False):
            return None
        if getattr(head, "order", 2) != 2:
            return None
        epsilon = keras.backend.epsilon() if head.epsilon is None else head.epsilon
        kind = _KINDS[type(head).__name__]

        def function(x, gamma=None, beta=None, scale=None):
            y = normalized(node.name, x, head.axis, kind, epsilon)
            return _affine(node, y, scale if gamma is None else gamma, beta)

        return function

    return rewrite_nodes(graph, write)


def _affine(node: Node, y: Any, factor: Any, offset: Any) -> Any:
    """Applies factors and offsets, each a constant, a variable, or None."""
    if factor is None and offset is None:
        return y
    layer = ChannelAffine(
        trainable_scale=_trains(factor),
        trainable_shift=_trains(offset),
        gamma_regularizer=regularizer_of(factor, y.shape[-1]),
        beta_regularizer=regularizer_of(offset, y.shape[-1]),
        name="affine",
        dtype="float32",
    )
    layer.build(y.shape)
    layer.set_values(_per_channel(node, factor, 1.0, y), _per_channel(node, offset, 0.0, y))
    return layer(y)


def _trains(weight: Any) -> bool:
    return isinstance(weight, Parameter) and weight.trainable


def _per_channel(node: Node, weight: Any, default: float, y: Any) -> np.ndarray:
    """Returns the values of a factor or offset for all channels."""
    channels = y.shape[-1]
    if weight is None:
        return np.full(channels, default)
    is_tensor = isinstance(weight, keras.KerasTensor)
    value = np.zeros(0) if is_tensor else value_of(weight)
    is_last = np.atleast_1d(getattr(node.head, "axis", -1)).tolist() in ([-1], [len(y.shape) - 1])
    if is_tensor or value.size not in (1, channels) or not (is_last or value.size == 1):
        raise UnsupportedLayerError(
            "A normalization must have one factor and one offset for each channel.",
            layer=node.name,
            received="a tensor of the model" if is_tensor else f"shape {value.shape}",
            expected=f"constants or variables of shape ({channels},)",
            fix="Normalize without them, and multiply and add afterwards.",
        )
    return np.broadcast_to(value.reshape(-1), (channels,))
