"""Writes a sum over axes as a mean times the number of its values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Graph, Node, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.passes.rewriting import rewrite_nodes

_SUM = operation_named("Sum")


def write_sums_as_means(graph: Graph) -> Graph:
    """Writes `ops.sum(x, axis)` as `ops.mean(x, axis) * n`.

    Matches: `ops.sum` over axes of known size, without the batch.
    Builds: an `ops.mean`, and under the old name an `ops.multiply` by a constant.
    Why: LiteRT's reference kernel computes int8 sums wrongly.

    Args:
        graph: The graph.

    Returns:
        A graph without such sums.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        shape = graph.shape(node.inputs[0])
        count = _count(node, shape) if _SUM(node.head) else 0
        return functools.partial(_mean_times, node.head, count) if count else None

    return rewrite_nodes(graph, write)


def _count(node: Node, shape: Shape) -> int:
    """Returns the number of values in each sum, or 0 if it depends on the batch or is unknown."""
    if node.head.axis is None:
        return 0
    axes = {axis % len(shape) for axis in np.atleast_1d(node.head.axis).tolist()}
    sizes = [shape[axis] for axis in axes]
    return 0 if 0 in axes else math.prod(size or 0 for size in sizes)


def _mean_times(head: Any, count: int, x: Any) -> Any:
    return ops.multiply(ops.mean(x, axis=head.axis, keepdims=head.keepdims), float(count))
