"""Writes activations as a few operators that are fast in every kernel library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.graph import Graph, Node
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.passes.rewriting import rewrite_nodes


def _silu(x: Any) -> Any:
    return x * ops.sigmoid(x)


def _hard_silu(x: Any) -> Any:
    return x * ops.hard_sigmoid(x)


DECOMPOSED: dict[str, Callable[..., Any]] = {
    "hard_silu": _hard_silu,
    "silu": _silu,
}


def decompose_activations(graph: Graph) -> Graph:
    """Writes a swish as `x * sigmoid(x)`, a hard-swish as `x * hard_sigmoid(x)`.

    Matches: swish and hard-swish.
    Builds: a sigmoid or hard-sigmoid, and a multiplication.
    Why: LOGISTIC, ADD and MUL are operators of XNNPACK, of microcontrollers and of NPUs. A single
    operator for a swish or a hard-swish (a lookup or HARD_SWISH) takes six times as long.

    Args:
        graph: The graph.

    Returns:
        A graph with more, faster operators; the graph itself if there was no such activation.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        function = function_of(node.head) if len(node.operations) == 1 else None
        return None if function is None else DECOMPOSED.get(function.name)

    return rewrite_nodes(graph, write)
