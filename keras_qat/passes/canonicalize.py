"""Brings what has several forms into one, until nothing changes."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.passes.canonical.constants import constant_over_reshape
from keras_qat.passes.canonical.edits import Rule, apply_rules
from keras_qat.passes.canonical.paddings import join_paddings, remove_padding
from keras_qat.passes.canonical.relus import join_relus, relu_over_moves
from keras_qat.passes.canonical.reshapes import (
    function_over_reshape,
    join_reshapes,
    remove_reshape,
)
from keras_qat.passes.canonical.transposes import (
    function_over_transpose,
    join_transposes,
    remove_transpose,
)

RULES: tuple[Rule, ...] = (
    remove_transpose,
    remove_reshape,
    remove_padding,
    join_transposes,
    join_reshapes,
    join_paddings,
    join_relus,
    constant_over_reshape,
    relu_over_moves,
    function_over_transpose,
    function_over_reshape,
)


def canonicalize(graph: Graph) -> Graph:
    """Joins adjacent transpositions, reshapes, paddings and ReLUs, or cancels them.

    Matches: two of a kind in a row; a ReLU after what it commutes with, if the layer before takes
    it up: max pooling, reshape, transposition, padding; a bias after a reshape; an element-wise
    function, batch normalization or softmax between two transpositions or reshapes.
    Builds: one of the kind, or none; the function first and the transposition last. This is
    repeated until nothing changes.
    Why: each transposition, reshape, padding and separate ReLU is an operator that copies a whole
    tensor.

    Args:
        graph: The graph.

    Returns:
        A graph that no rule matches; the graph itself if none matched.
    """
    for _ in range(_measure(graph)):
        edited = apply_rules(graph, RULES)
        if edited is graph:
            break
        graph = edited
    return graph


def _measure(graph: Graph) -> int:
    """Bounds how often rules can apply.

    Each application lowers the number of nodes and of pairs of a transposition, reshape, padding
    or pooling and a node after it: it removes a node, moves a function before one of these, or
    lets a node skip one. No rule raises either number, and both together are at most this.
    """
    return len(graph.nodes) * (len(graph.nodes) + 1)
