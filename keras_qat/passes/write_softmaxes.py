"""Writes a softmax over any axis as one over the last axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_qat.graph import Graph, Node, operation_named
from keras_qat.layers.decompositions.composed import softmax_over
from keras_qat.passes.rewriting import rewrite_nodes

_SOFTMAX = operation_named("Softmax")


def write_softmaxes(graph: Graph) -> Graph:
    """Writes `ops.softmax(x, axis=1)` as a transpose, a softmax over the last axis, a transpose.

    Matches: `ops.softmax` over one axis that is not written as -1 and is not the batch.
    Builds: the three operations, or the softmax alone where the axis is the last one.
    Why: LiteRT's SOFTMAX works along the last axis.

    Args:
        graph: The graph.

    Returns:
        A graph with softmaxes over the last axis.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if not _SOFTMAX(node.head) or node.head.axis in (-1, None):
            return None
        axis = node.head.axis % len(graph.shape(node.inputs[0]))
        return (lambda x: softmax_over(x, [axis])) if axis else None

    return rewrite_nodes(graph, write)
