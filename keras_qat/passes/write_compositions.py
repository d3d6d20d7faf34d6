"""Writes composite operations as the simpler operations that they consist of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.graph import Graph, Node
from keras_qat.passes.rewriting import rewrite_nodes


def write_compositions(graph: Graph) -> Graph:
    """Writes `ops.var`, `ops.std`, `ops.logsumexp` and the gated linear unit in simpler operations.

    Matches: `ops.var`, `ops.std`, `ops.logsumexp`, `ops.glu` and `Activation("glu")`.
    Builds: the means, squares, products and other operations of their definitions.
    Why: LiteRT has no operators for them, but has operators for all their parts.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations do not occur.
    """
    return rewrite_nodes(graph, _written)


def _written(node: Node) -> Callable[..., Any] | None:
    write = _COMPOSITIONS.get(type(node.head).__name__)
    is_operation = type(node.head).__module__.startswith("keras.src.ops.")
    return functools.partial(write, node.head) if write and is_operation else None


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


# The functions by the name of the operation's class.
_COMPOSITIONS: dict[str, Callable[..., Any]] = {
    "Glu": _gated,
    "Logsumexp": _logsumexp,
    "Std": _standard_deviation,
    "Var": _variance,
}
