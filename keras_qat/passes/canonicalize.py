"""Rewrites equivalent forms as one canonical form, until nothing changes."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.passes.canonical.constants import constant_over_reshape
from keras_qat.passes.canonical.edits import Rule, apply_rules
from keras_qat.passes.canonical.paddings import join_paddings, remove_padding
from keras_qat.passes.canonical.relus import join_relus, relu_over_moves
from keras_qat.passes.canonical.reshapes import (
    function_over_reshape,
    join_reshapes,
    norm_over_reshape,
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
    norm_over_reshape,
    relu_over_moves,
    function_over_transpose,
    function_over_reshape,
)


def canonicalize(graph: Graph) -> Graph:
    """Joins or cancels adjacent transpositions, reshapes, paddings and ReLUs.

    Matches: two operations of one of these types in sequence; a ReLU after a max pooling, reshape,
    transposition or padding, if the layer before can fuse the ReLU; a bias after a reshape; a
    batch normalization after a reshape, if the layer before can fold the normalization; an
    element-wise function, batch normalization or softmax between two transpositions or reshapes.
    Builds: one operation of the type, or none; the function first and the transposition last. The
    pass repeats these steps until nothing changes.
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
    """Returns an upper bound of the number of times that rules can apply.

    A pair is a transposition, reshape, padding or pooling, and a node after it. Each application
    lowers the number of nodes or of pairs: it removes a node, moves a function before the first
    node of a pair, or lets a node skip it. No rule raises either number. The bound is the largest
    possible sum of both.
    """
    return len(graph.nodes) * (len(graph.nodes) + 1)
