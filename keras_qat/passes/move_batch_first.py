"""Takes parts of tensors before a transposition moves their batch from the first axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.layers.moving.transpose import TRANSPOSE, axes_of
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes, splice

# Returns the outputs of an operation, given the tensor before a transposition, and its axes.
Write = Callable[[Any, tuple[int, ...]], list[Any]]


def move_batch_first(graph: Graph) -> Graph:
    """Writes `ops.transpose(x, (2, 0, 3, 1, 4))[0]` as a transposition of `x[:, :, 0]`.

    Matches: an index, `ops.unstack`, `ops.split` or `ops.squeeze` after a transposition that moves
    the batch from the first axis.
    Builds: the operation along the original axis, and a transposition of each output.
    Why: operators need the batch, whose size is not known, as the first axis. Layers of attention
    make queries, keys and values in this way.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations take tensors with the batch as first axis.
    """
    used = {*graph.consumers(), *graph.output_edges}
    movers: dict[str, Node] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if _moves_batch(node) and node.inputs[0].node not in movers:
            movers[node.name] = node
            return None
        mover = movers.get(node.inputs[0].node)
        make = _WRITERS.get(type(node.head).__name__)
        written = None if mover is None or make is None else make(node)
        if mover is None or written is None:
            return None
        mover, source = rewriting.graph().nodes[mover.name], mover.inputs[0]
        x = keras.Input(batch_shape=rewriting.shape(source), dtype=node.dtypes[0])
        outputs = written(x, axes_of(mover))
        kept = [y if Edge(node.name, i) in used else None for i, y in enumerate(outputs)]
        needed = next(y for y in kept if y is not None)
        inner = read_model(keras.Model(x, [needed if y is None else y for y in kept]))
        made = splice(dataclasses.replace(node, inputs=(source,)), inner, rewriting)
        movers.update({each.name: each for each in made.nodes if _moves_batch(each)})
        return dataclasses.replace(made, beside=(mover,))

    return _without(movers, replace_nodes(graph, write))


def _moves_batch(node: Node) -> bool:
    return len(node.inputs) == 1 and TRANSPOSE(node.head) and axes_of(node)[0] != 0


def _without(movers: dict[str, Node], graph: Graph) -> Graph:
    """Removes transpositions that no node needs any more."""
    needed = {edge.node for edge in (*graph.consumers(), *graph.output_edges)}
    unused = movers.keys() - needed
    kept = [node for node in graph.nodes.values() if node.name not in unused]
    return graph.replace(kept, {}) if unused else graph


def _part(x: Any, axes: tuple[int, ...], axis: int, position: int) -> Any:
    """Returns one position of an axis of the transposed tensor."""
    taken = axes[axis]
    y = x[(*(slice(None) for _ in range(taken)), position)]
    return _transposed(y, [each - (each > taken) for each in axes if each != taken])


def _transposed(x: Any, axes: Any) -> Any:
    return x if list(axes) == sorted(axes) else ops.transpose(x, axes)


def _index(node: Node) -> Write | None:
    _, key = [*node.arguments[0], *node.arguments[1].values()]
    first, *rest = key if isinstance(key, list | tuple) else (key,)
    if isinstance(first, bool) or not isinstance(first, int):
        return None

    def write(x: Any, axes: tuple[int, ...]) -> list[Any]:
        y = _part(x, axes, 0, first)
        return [y[tuple(rest)] if rest else y]

    return write


def _unstack(node: Node) -> Write:
    count, axis = len(node.shapes), node.head.axis
    return lambda x, axes: [_part(x, axes, axis, i) for i in range(count)]


def _split(node: Node) -> Write:
    sections, axis = node.head.indices_or_sections, node.head.axis

    def write(x: Any, axes: tuple[int, ...]) -> list[Any]:
        return [_transposed(y, axes) for y in ops.split(x, sections, axis=axes[axis])]

    return write


def _squeeze(node: Node) -> Write | None:
    axis = node.head.axis
    return (lambda x, axes: [_part(x, axes, axis, 0)]) if isinstance(axis, int) else None


# The function that writes each operation.
_WRITERS: dict[str, Callable[[Node], Write | None]] = {
    "GetItem": _index,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unstack": _unstack,
}
