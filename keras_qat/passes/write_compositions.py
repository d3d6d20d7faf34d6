"""Writes composite operations as the simpler operations that they consist of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.layers.moving.gather import constant_integers
from keras_qat.passes.composed_ids import multi_hot, one_hot
from keras_qat.passes.composed_reductions import cumulative_sum, norm, product
from keras_qat.passes.rewriting import rewrite_nodes


def write_compositions(graph: Graph) -> Graph:
    """Writes `ops.var`, `ops.image.extract_patches` and others in simpler operations.

    Matches: `ops.var`, `ops.std`, `ops.logsumexp`, `ops.norm`, `ops.prod`, `ops.cumsum`, `ops.glu`
    and `Activation("glu")`; `ops.one_hot` and `ops.multi_hot`; `ops.roll` along several axes;
    `ops.take_along_axis` of constant positions; `ops.image.extract_patches` of images with
    channels last.
    Builds: the means, squares, products and other operations of their definitions. For a product
    over an axis, products of halves, of quarters and so on. For a cumulative sum, a product with a
    triangle of ones. For ids, comparisons with all classes. A roll of one axis after the other.
    For positions along an axis, positions among all values of a sample.
    For patches, positions taken from rows and columns if patches overlap or leave gaps, and a
    transposition.
    Why: LiteRT has no operators for them, but has operators for all their parts.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations do not occur.

    Raises:
        UnsupportedLayerError: If such an operation is over the batch, or a norm needs singular
            values.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        kind = type(node.head).__name__
        is_operation = type(node.head).__module__.startswith("keras.src.ops.")
        is_written = is_operation and kind in _COMPOSITIONS
        if kind in _CONDITIONS:
            is_written = is_written and _CONDITIONS[kind](node.head)
        if kind in _OF_REAL_VALUES:
            is_written = is_written and graph.dtype(node.inputs[0]) != "bool"
        return functools.partial(_COMPOSITIONS[kind], node.head) if is_written else None

    return rewrite_nodes(graph, write)


def _any(operation: Any, x):
    return ops.any(ops.not_equal(x, 0), axis=operation.axis, keepdims=operation.keepdims)


def _all(operation: Any, x):
    return ops.all(ops.not_equal(x, 0), axis=operation.axis, keepdims=operation.keepdims)


def _cast(operation: Any, x):
    return ops.not_equal(x, 0)


def _variance(operation: Any, x):
    deviation = x - ops.mean(x, axis=operation.axis, keepdims=True)
    return ops.mean(ops.square(deviation), axis=operation.axis, keepdims=operation.keepdims)


def _standard_deviation(operation: Any, x):
    return ops.sqrt(_variance(operation, x))


def _logsumexp(operation: Any, x):
    # Subtracting the largest value keeps exponentials from overflowing.
    largest = ops.max(x, axis=operation.axis, keepdims=True)
    total = ops.sum(ops.exp(x - largest), axis=operation.axis, keepdims=operation.keepdims)
    kept = largest if operation.keepdims else ops.squeeze(largest, operation.axis)
    return ops.log(total) + kept


def _gated(operation: Any, x):
    value, gate = ops.split(x, 2, axis=operation.axis)
    return value * ops.sigmoid(gate)


def _rolled(operation: Any, x):
    axes = np.ravel(operation.axis)
    for axis, shift in zip(axes, np.broadcast_to(operation.shift, axes.shape), strict=True):
        x = ops.roll(x, int(shift), axis=int(axis))
    return x


def _along_axis(operation: Any, x, indices):
    """Takes the values along an axis from flattened samples."""
    positions = constant_integers("take_along_axis", indices)
    axis = operation.axis if operation.axis is None else operation.axis % len(x.shape)
    if not axis or positions.shape[0] != 1 or len(positions.shape) != len(x.shape):
        raise UnsupportedLayerError(
            "Positions along an axis are selected within each sample, alike for all samples.",
            received=f"axis={operation.axis}, and positions of shape {positions.shape}",
            expected=f"axis 1 or a later one, and {len(x.shape)} sizes of positions, the first 1",
            fix="Add a first axis of 1 to the positions, `positions[None]`, and give the axis.",
        )
    shape = x.shape[1:]
    numbers = np.arange(math.prod(shape)).reshape((1, *shape))
    wide = (*shape[: axis - 1], positions.shape[axis], *shape[axis:])
    taken = np.take_along_axis(numbers, np.broadcast_to(positions, (1, *wide)), axis)
    return ops.reshape(
        ops.take(ops.reshape(x, (-1, numbers.size)), taken.ravel(), axis=1), (-1, *wide)
    )


def _patches(operation: Any, images):
    """Takes the rows of all patches, then the columns, and moves each patch to the last axis."""
    steps, gaps = _pair(operation.strides), _pair(operation.dilation_rate)
    counts: list[int] = []
    for axis, size in enumerate(operation.size, start=1):
        step, gap, length = steps[axis - 1], gaps[axis - 1], images.shape[axis]
        reach = (size - 1) * gap + 1
        if operation.padding == "same":
            missing = max((-(-length // step) - 1) * step + reach - length, 0)
            pads = [(0, 0)] * 4
            pads[axis] = (missing // 2, missing - missing // 2)
            images = ops.pad(images, pads) if missing else images
            length += missing
        counts.append((length - reach) // step + 1)
        places = np.add.outer(np.arange(counts[-1]) * step, np.arange(size) * gap).ravel()
        if places.tolist() != list(range(length)):
            images = ops.take(images, places, axis=axis)
    (rows, columns), (height, width) = counts, operation.size
    parts = ops.reshape(images, (-1, rows, height, columns, width, images.shape[-1]))
    parts = ops.transpose(parts, (0, 1, 3, 2, 4, 5))
    return ops.reshape(parts, (-1, rows, columns, height * width * images.shape[-1]))


def _pair(value: Any) -> tuple[int, int]:
    """Returns the values for height and width."""
    return (value, value) if isinstance(value, int) else tuple(value)


# Reductions of booleans, which are written in others only for other types.
_OF_REAL_VALUES = {"All", "Any"}

# The conditions under which an operation is written in others.
_CONDITIONS: dict[str, Callable[[Any], bool]] = {
    "Cast": lambda each: each.dtype == "bool",
    "Cumsum": lambda each: each.dtype in (None, "float32"),
    "ExtractPatches": lambda each: not each.is_3d and each.data_format == "channels_last",
    "Prod": lambda each: each.dtype in (None, "float32"),
    "Roll": lambda each: np.size(each.axis) > 1,
}

# The functions by the name of the operation's class.
_COMPOSITIONS: dict[str, Callable[..., Any]] = {
    "All": _all,
    "Any": _any,
    "Cast": _cast,
    "Cumsum": cumulative_sum,
    "ExtractPatches": _patches,
    "Glu": _gated,
    "Logsumexp": _logsumexp,
    "MultiHot": multi_hot,
    "Norm": norm,
    "OneHot": one_hot,
    "Prod": product,
    "Roll": _rolled,
    "Std": _standard_deviation,
    "TakeAlongAxis": _along_axis,
    "Var": _variance,
}
