"""Writes selections of one of two numbers as booleans, masks and arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, any_of, layer_of, operation_named, read_model
from keras_qat.layers.core.activation_names import activation_name
from keras_qat.layers.decompositions.composed import mask_scores
from keras_qat.layers.elementwise.binary import operands_of, value_of
from keras_qat.layers.elementwise.maximum import MASKED, SELECTION
from keras_qat.passes.canonical.edits import without_unused
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes, rewrite_nodes, splice

_ARITHMETIC = operation_named("Add", "Divide", "Multiply", "Subtract", "TrueDivide")
_CAST = operation_named("Cast")
_COMPARISON = operation_named("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual")
_SUM = any_of(layer_of(keras.layers.Add), operation_named("Add"))
_SOFTMAX = any_of(layer_of(keras.layers.Softmax), operation_named("Softmax"))


@dataclasses.dataclass(frozen=True)
class _Selection:
    """A tensor with one of two numbers in each place.

    Attributes:
        condition: The booleans that select.
        numbers: The number where the condition holds, and the number elsewhere.
        nodes: The nodes that compute the tensor from the condition.
    """

    condition: Edge
    numbers: tuple[Any, Any]
    nodes: tuple[Node, ...]


def write_selections(graph: Graph) -> Graph:
    """Writes `softmax(x + ops.where(mask, 0.0, -1e9))` as a softmax of a selection.

    Matches: selections of one of two numbers, `ops.where(condition, 1.0, 2.0)`; casts of booleans;
    arithmetic of these with numbers, such as `(1.0 - ops.cast(mask, "float32")) * -1e9`.
    Builds: where they are compared with a number, the condition or its opposite; where they are
    added before a softmax and are 0 and -10,000 or less, a selection of the scores; else the
    condition as 0 and 1, times a number, plus a number.
    Why: an 8-bit sum with a range of 1e9 would round all scores to one integer. LiteRT selects
    from tensors, and numbers need none. A softmax whose scores are all masked becomes uniform.

    Args:
        graph: The graph.

    Returns:
        A graph in which each selection has a tensor among its operands.
    """
    consumers = graph.consumers()

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        known = rewriting.graph()
        for edge in node.inputs:
            selection = _selection(known, edge)
            if selection is not None and _COMPARISON(node.head):
                return _decided(node, selection, rewriting)
            takers = consumers.get(Edge(node.name), ())
            is_score = bool(takers) and all(map(_is_softmax, takers))
            if selection is not None and _SUM(node.head) and is_score:
                return _masked(node, edge, selection, rewriting)
        return None

    made = replace_nodes(graph, write)
    return rewrite_nodes(graph if made is graph else without_unused(made), _as_arithmetic)


def _is_softmax(node: Node) -> bool:
    return _SOFTMAX(node.head) or activation_name(node.head) == "softmax"


def _selection(graph: Graph, edge: Edge) -> _Selection | None:
    """Returns the selection that a tensor is, or None for other tensors."""
    node = graph.nodes[edge.node]
    if node.is_input or len(node.operations) != 1:
        return None
    if SELECTION(node.head):
        numbers = _numbers(node)
        return _Selection(node.inputs[0], numbers, (node,)) if numbers is not None else None
    is_real = not graph.is_plain(edge)
    if _CAST(node.head) and is_real and graph.dtype(node.inputs[0]) == "bool":
        return _Selection(node.inputs[0], (np.float32(1.0), np.float32(0.0)), (node,))
    if not _ARITHMETIC(node.head) or len(node.inputs) != 1:
        return None
    operands = operands_of(node)
    before = _selection(graph, node.inputs[0])
    fixed = [_number(each) for each in operands if not isinstance(each, Edge)]
    if before is None or len(fixed) != 1 or fixed[0] is None:
        return None
    first, second = (
        node.head(*(number if isinstance(each, Edge) else fixed[0] for each in operands))
        for number in before.numbers
    )
    numbers = np.float32(ops.convert_to_numpy(first)), np.float32(ops.convert_to_numpy(second))
    return dataclasses.replace(before, numbers=numbers, nodes=(*before.nodes, node))


def _numbers(node: Node) -> tuple[Any, Any] | None:
    """Returns the two numbers of a selection whose condition is a tensor."""
    condition, *operands = operands_of(node)
    first, second = map(_number, operands)
    is_computed = isinstance(condition, Edge) and len(node.inputs) == 1
    return (first, second) if is_computed and first is not None and second is not None else None


def _number(operand: Any) -> Any:
    """Returns a constant number that does not train; None for other operands."""
    if isinstance(operand, Edge) or getattr(operand, "trainable", False):
        return None
    value = value_of(operand)
    return np.float32(value.item()) if value.size == 1 and value.ndim == 0 else None


def _decided(node: Node, selection: _Selection, rewriting: Rewriting) -> Replacement | None:
    """Writes the comparison of a selection with a number."""
    operands = operands_of(node)
    fixed = [_number(each) for each in operands if not isinstance(each, Edge)]
    if len(node.inputs) != 1 or len(fixed) != 1 or fixed[0] is None:
        return None
    results = [
        bool(node.head(*(number if isinstance(each, Edge) else fixed[0] for each in operands)))
        for number in selection.numbers
    ]

    if results == [True, False]:
        return Replacement((), [selection.condition])

    def decide(condition: Any) -> Any:
        """Writes a comparison of the selected constants as logic of the condition."""
        if results == [False, True]:
            return ops.logical_not(condition)
        return (ops.logical_or if results[0] else ops.logical_and)(condition, results[0])

    return _spliced(node, [selection.condition], decide, selection, rewriting)


def _masked(
    node: Node, mask: Edge, selection: _Selection, rewriting: Rewriting
) -> Replacement | None:
    """Writes the sum of scores and a selection that masks some of them."""
    scores = [edge for edge in node.inputs if edge != mask]
    is_kept = [number == 0 for number in selection.numbers]
    is_far = [number <= MASKED for number in selection.numbers]
    is_mask = any(is_kept) and all(a or b for a, b in zip(is_kept, is_far, strict=True))
    if len(scores) != 1 or len(operands_of(node)) != 2 or not is_mask or all(is_kept):
        return None
    ranks = {len(rewriting.shape(edge)) for edge in (*scores, selection.condition)}
    if len(ranks) != 1 or rewriting.shape(scores[0]) != node.shapes[0]:
        return None

    def select(condition: Any, x: Any) -> Any:
        return mask_scores(x, condition if is_kept[0] else ops.logical_not(condition))

    return _spliced(node, [selection.condition, *scores], select, selection, rewriting)


def _spliced(
    node: Node,
    edges: Sequence[Edge],
    function: Callable[..., Any],
    selection: _Selection,
    rewriting: Rewriting,
) -> Replacement:
    """Returns the operations of a function of tensors, in the place of a node."""
    graph = rewriting.graph()
    tensors = [
        keras.Input(batch_shape=rewriting.shape(edge), dtype=graph.dtype(edge)) for edge in edges
    ]
    inner = read_model(keras.Model(tensors, function(*tensors)))
    made = splice(dataclasses.replace(node, inputs=tuple(edges)), inner, rewriting)
    return dataclasses.replace(made, beside=selection.nodes)


def _as_arithmetic(node: Node) -> Callable[..., Any] | None:
    """Writes a selection of one of two numbers as 0 and 1, times a number, plus a number."""
    numbers = _numbers(node) if not node.is_input and SELECTION(node.head) else None
    if numbers is None:
        return None
    first, second = map(float, numbers)

    def write(condition: Any, *_: Any, **__: Any) -> Any:
        x = ops.cast(condition, "float32")
        x = x if first - second == 1.0 else x * (first - second)
        return x if second == 0.0 else x + second

    return write
