"""Keras layers that consist of operations, but whose own `call` cannot be traced directly."""

from __future__ import annotations

import inspect
import math
import string
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.keras_internals import set_mask
from keras_qat.layers.core.registry import register

# A magnitude that float32 and float16 scores do not reach, or overflow.
FAR = 1e9


def softmax_over(x: Any, axes: Sequence[int]) -> Any:
    """Computes a softmax over any axes as a softmax over the last axis, which LiteRT supports.

    Args:
        x: Symbolic tensor; only the size of its first axis may be unknown.
        axes: Axes of the softmax, without the first axis (the batch); distinct, counted from 0.

    Returns:
        A tensor of the shape of `x`.

    Example:
    >>> softmax_over(ops.zeros((1, 4, 3)), [1])[0, :, 0].numpy().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    rank = len(x.shape)
    order = [axis for axis in range(rank) if axis not in axes] + sorted(axes)
    moves = order != list(range(rank))
    moved = ops.transpose(x, order) if moves else x
    y = moved
    if len(axes) > 1:
        y = ops.reshape(y, (-1, *y.shape[1 : rank - len(axes)], math.prod(y.shape[-len(axes) :])))
    y = ops.softmax(y, axis=-1)
    if len(axes) > 1:
        y = ops.reshape(y, (-1, *moved.shape[1:]))
    return ops.transpose(y, [order.index(axis) for axis in range(rank)]) if moves else y


def mask_scores(scores: Any, mask: Any) -> Any:
    """Makes scores so low that a softmax ignores them.

    Args:
        scores: Symbolic tensor.
        mask: False for the scores to ignore; a tensor or an array that broadcasts to the scores.

    Returns:
        A minimum with a constant; for a mask that is a symbolic tensor, a selection.
    """
    if isinstance(mask, keras.KerasTensor):
        return ops.where(mask, scores, -FAR)
    mask = ops.convert_to_numpy(mask).astype(bool)
    return ops.minimum(scores, np.where(mask, FAR, -FAR).astype("float32"))


@register(keras.layers.Softmax)
def _softmax(layer: Any, inputs: Any, mask: Any = None) -> Any:
    if mask is not None:
        # Masks of integers count as True where they are not 0.
        is_symbol = isinstance(mask, keras.KerasTensor)
        mask = ops.not_equal(mask, 0) if is_symbol and mask.dtype != "bool" else mask
        inputs = mask_scores(inputs, mask)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    axes = [axis % len(inputs.shape) for axis in axes]
    if 0 in axes:
        raise UnsupportedLayerError(
            "A softmax over the batch has no integer form.",
            layer=layer.name,
            received=f"axis={layer.axis}",
        )
    y = softmax_over(inputs, axes)
    from_last = [axis - len(inputs.shape) for axis in axes]
    is_complete = mask is None or _leaves_some(mask, from_last)
    return y if is_complete else ops.where(mask, y, 0.0)


def _leaves_some(mask: Any, axes: Sequence[int]) -> bool:
    """Returns whether a mask surely leaves a score in each softmax. If none is left, all are 0."""
    if isinstance(mask, keras.KerasTensor) or len(mask.shape) < -min(axes):
        return False
    return bool(ops.convert_to_numpy(mask).any(axis=tuple(axes)).all())


@register(keras.layers.Dot)
def _dot(layer: Any, inputs: Sequence[Any]) -> Any:
    ranks = [len(x.shape) for x in inputs]
    axes = layer.axes if isinstance(layer.axes, list | tuple) else [layer.axes] * 2
    axes = [axis % rank for axis, rank in zip(axes, ranks, strict=True)]
    if layer.normalize:
        unit = keras.layers.UnitNormalization
        inputs = [
            unit(axis, name=f"unit_{i}")(x)
            for i, (x, axis) in enumerate(zip(inputs, axes, strict=True))
        ]
    letters = string.ascii_letters
    a = letters[: ranks[0]]
    b = [a[0], *letters[ranks[0] : sum(ranks) - 1]]
    b[axes[1]] = summed = a[axes[0]]
    out = "".join(axis for axis in (*a, *b[1:]) if axis != summed)
    y = ops.einsum(f"{a},{''.join(b)}->{out}", *inputs)
    return ops.expand_dims(y, -1) if len(out) == 1 else y


@register(keras.layers.EinsumDense)
def _einsum_dense(layer: Any, inputs: Any) -> Any:
    if _is_channelwise(layer.equation):
        y = inputs * layer.kernel
    else:
        y = ops.einsum(layer.equation, inputs, layer.kernel)
    if layer.bias is not None:
        y = y + layer.bias
    return layer.activation(y)


def _is_channelwise(equation: str) -> bool:
    """Returns whether nothing is contracted: each channel has a factor, as in `abc,c->abc`."""
    operands, output = equation.split("->")
    values, kernel = operands.split(",")
    return values == output and len(kernel) == 1 and values.endswith(kernel)


@register(keras.layers.Lambda)
def _lambda(layer: Any, inputs: Any, mask: Any = None) -> Any:
    del mask  # functions without the argument `mask` do not get it
    if {"training", "mask"} & set(inspect.signature(layer.function).parameters):
        raise UnsupportedLayerError(
            "A function that takes `training` or `mask` cannot be traced.",
            layer=layer.name,
            fix="Give this layer a function of its input only: "
            f"`model.get_layer('{layer.name}').function = lambda x: ...`.",
        )
    return layer.function(inputs, **(layer.arguments or {}))


def _grouped_attention(
    layer: Any,
    query: Any,
    value: Any,
    *args: Any,
    attention_mask: Any = None,
    use_causal_mask: bool = False,
    **kwargs: Any,
) -> Any:
    # The dropout is a layer inside the attention, and remains a layer of the graph.
    if use_causal_mask:
        # Keras would ask projections for the lengths, which these do not always know.
        causal = np.tri(query.shape[1], value.shape[1], dtype=bool)[None]
        given = attention_mask
        attention_mask = causal if given is None else ops.logical_and(given, causal)
    return layer.call(query, value, *args, attention_mask=attention_mask, **kwargs)


def _multi_head_attention(layer: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
    # Keras ignores the argument, and asks the tensor for its mask.
    set_mask(query, kwargs.get("query_mask"))
    return _grouped_attention(layer, query, *args, **kwargs)


def _attention(layer: Any, inputs: Any, mask: Any = None, **kwargs: Any) -> Any:
    if layer.dropout:
        raise UnsupportedLayerError(
            "The dropout inside an attention layer cannot be traced.",
            layer=layer.name,
            received=f"dropout={layer.dropout}",
            fix="Use `keras.layers.MultiHeadAttention`, or `dropout=0`.",
        )
    return layer.call(inputs, mask=mask, **{**kwargs, "training": False})


register(keras.layers.GroupQueryAttention)(_grouped_attention)
register(keras.layers.MultiHeadAttention)(_multi_head_attention)
register(keras.layers.Attention)(_attention)
register(keras.layers.AdditiveAttention)(_attention)
