"""Shapes of the outputs of operators."""

from __future__ import annotations

from collections.abc import Sequence


def broadcast_shape(*shapes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Returns the shape to which shapes of one rank broadcast.

    Example:
    >>> broadcast_shape((None, 1, 3), (1, 4, 3))
    (None, 4, 3)
    """
    sizes = []
    for each in zip(*shapes, strict=True):
        larger = [size for size in each if size != 1]
        known = [size for size in larger if size is not None]
        sizes.append(known[0] if known else None if larger else 1)
    return tuple(sizes)
