"""Norms, products and cumulative sums, written in simpler operations."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers.core.sequences import check_sizes_known
from keras_qat.layers.moving.reshape import batch_moved


def norm(operation: Any, x: Any) -> Any:
    """Writes `ops.norm` as sums, square roots and maxima of magnitudes.

    Args:
        operation: The operation, with `ord`, `axis` and `keepdims`.
        x: Symbolic tensor.

    Returns:
        The norm.

    Raises:
        UnsupportedLayerError: If the norm needs singular values or is over the batch.
    """
    axes, order = _axes(operation, x), operation.ord
    if order in (None, "fro") or (order == 2 and len(axes) == 1):
        return ops.sqrt(ops.sum(ops.square(x), axis=axes, keepdims=operation.keepdims))
    is_vector = len(axes) == 1
    if order in ("nuc", 2, -2) or (is_vector and order < 0 and order != -np.inf):
        raise UnsupportedLayerError(
            "This norm divides, or needs singular values, which have no integer form.",
            layer=operation.name,
            received=f"ord={order!r}, axis={operation.axis}",
            expected="the order None, a positive order of vectors, or a sum of magnitudes",
            fix="Use `ops.norm(x, axis=...)`, whose order is None.",
        )
    y = _of_vectors(x, order, axes) if is_vector else _of_matrices(ops.abs(x), order, axes)
    return y if operation.keepdims else ops.squeeze(y, axis=axes)


def _of_vectors(x: Any, order: float, axes: tuple[int, ...]) -> Any:
    """Returns the norms of vectors. The axis is kept."""
    if order == 0:
        found = ops.cast(ops.not_equal(x, 0.0), "float32")
        return ops.sum(found, axis=axes, keepdims=True)
    size = ops.abs(x)
    if abs(order) == np.inf:
        return (ops.max if order > 0 else ops.min)(size, axis=axes, keepdims=True)
    if order == 1:
        return ops.sum(size, axis=axes, keepdims=True)
    total = ops.sum(ops.power(size, float(order)), axis=axes, keepdims=True)
    return ops.power(total, 1.0 / order)


def _of_matrices(size: Any, order: float, axes: tuple[int, ...]) -> Any:
    """Returns the largest or smallest sum of a column or row of magnitudes. The axes are kept."""
    summed, compared = axes if abs(order) == 1 else axes[::-1]
    totals = ops.sum(size, axis=summed, keepdims=True)
    return (ops.max if order > 0 else ops.min)(totals, axis=compared, keepdims=True)


def product(operation: Any, x: Any) -> Any:
    """Writes `ops.prod` as products of halves, then of quarters, and so on.

    Args:
        operation: The operation, with `axis` and `keepdims`.
        x: Symbolic tensor.

    Returns:
        The product over the axes.

    Raises:
        UnsupportedLayerError: If the product is over the batch, or an axis has no known size.
    """
    axes = _axes(operation, x)
    why = "The number of factors is not known."
    check_sizes_known(operation.name, [None, *(x.shape[axis] for axis in axes)], why)
    for axis in axes:
        x = _product_of_axis(x, axis)
    return x if operation.keepdims else ops.squeeze(x, axis=axes)


def _product_of_axis(x: Any, axis: int) -> Any:
    """Returns the product over an axis, which is kept."""
    left: list[Any] = []
    while (size := x.shape[axis]) > 1:
        half = size // 2
        places = [half, 2 * half] if size % 2 else [half]
        first, second, *rest = ops.split(x, places, axis=axis)
        x, left = first * second, [*left, *rest]
    for each in left:
        x = x * each
    return x


def cumulative_sum(operation: Any, x: Any) -> Any:
    """Writes `ops.cumsum` as a product with a triangle of ones.

    Args:
        operation: The operation, with `axis`.
        x: Symbolic tensor.

    Returns:
        The sums up to each position of the axis.

    Raises:
        UnsupportedLayerError: If the sum is over the batch, or the axis has no known size.
    """
    (axis,) = _axes(operation, x)
    why = "The number of summands is not known."
    check_sizes_known(operation.name, [None, x.shape[axis]], why)
    triangle = np.triu(np.ones((x.shape[axis], x.shape[axis]), "float32"))
    axes = string.ascii_lowercase[: len(x.shape)]
    moved = axes.replace(axes[axis], "z")
    return ops.einsum(f"{axes},{axes[axis]}z->{moved}", x, triangle)


def _axes(operation: Any, x: Any) -> tuple[int, ...]:
    """Returns the axes of an operation, counted from the first axis, which is not allowed."""
    axis, rank = operation.axis, len(x.shape)
    given: Sequence[int] = range(rank) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple(each % rank for each in given)
    if 0 in axes:
        raise batch_moved(operation.name, "all axes" if axis is None else f"axis={axis}")
    return axes
