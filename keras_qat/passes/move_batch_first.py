"""Takes parts of tensors before a transposition moves their batch from the first axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import keras
from keras import ops

from keras_qat.graph import Edge, Graph, Node, operation_named, read_model
from keras_qat.graph.graph import Shape
from keras_qat.layers.moving.transpose import TRANSPOSE, axes_of
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes, splice

_RESHAPE = operation_named("Reshape")


@dataclasses.dataclass(frozen=True)
class _Moved:
    """A transposition that moves the batch, and the reshape after it, if there is one.

    Attributes:
        names: The names of these nodes.
        axes: The axes of the transposition.
        shape: The shape after the reshape, which keeps the first axis.
    """

    names: tuple[str, ...]
    axes: tuple[int, ...]
    shape: Shape | None = None

    def part(self, x: Any, axis: int, position: int) -> Any:
        """Returns one position of an axis of the moved tensor."""
        taken = self.axes[axis]
        y = x[(*(slice(None) for _ in range(taken)), position)]
        y = _transposed(y, [each - (each > taken) for each in self.axes if each != taken])
        if self.shape is None:
            return y
        return ops.reshape(y, tuple(-1 if size is None else size for size in self.shape[1:]))


# Returns the outputs of an operation, given the tensor before a transposition.
Write = Callable[[Any, _Moved], list[Any]]


def move_batch_first(graph: Graph) -> Graph:
    """Writes `ops.transpose(x, (2, 0, 3, 1, 4))[0]` as a transposition of `x[:, :, 0]`.

    Matches: an index, `ops.unstack`, `ops.split` or `ops.squeeze` after a transposition that moves
    the batch from the first axis. Between the two a reshape may keep the first axis.
    Builds: the operation along the original axis, and a transposition of each output.
    Why: operators need the batch, whose size is not known, as the first axis. Layers of attention
    make queries, keys and values in this way.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations take tensors with the batch as first axis.
    """
    used = {*graph.consumers(), *graph.output_edges}
    movers: dict[str, _Moved] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        mover = movers.get(node.inputs[0].node)
        moved = _moved(node, mover, rewriting)
        if moved is not None:
            movers[node.name] = moved
            return None
        make = _WRITERS.get(type(node.head).__name__)
        written = None if mover is None or make is None else make(node, mover)
        if mover is None or written is None:
            return None
        chain = [rewriting.graph().nodes[name] for name in mover.names]
        source = chain[0].inputs[0]
        x = keras.Input(batch_shape=rewriting.shape(source), dtype=node.dtypes[0])
        outputs = written(x, mover)
        kept = [y if Edge(node.name, i) in used else None for i, y in enumerate(outputs)]
        needed = next(y for y in kept if y is not None)
        inner = read_model(keras.Model(x, [needed if y is None else y for y in kept]))
        made = splice(dataclasses.replace(node, inputs=(source,)), inner, rewriting)
        movers.update({each.name: _transposition(each) for each in made.nodes if _moves(each)})
        return dataclasses.replace(made, beside=chain)

    return _without(movers, replace_nodes(graph, write))


def _moves(node: Node) -> bool:
    return len(node.inputs) == 1 and TRANSPOSE(node.head) and axes_of(node)[0] != 0


def _transposition(node: Node) -> _Moved:
    return _Moved((node.name,), axes_of(node))


def _moved(node: Node, mover: _Moved | None, rewriting: Rewriting) -> _Moved | None:
    """Returns how a node moves the batch; None if it does not, or after another that does."""
    if mover is None:
        return _transposition(node) if _moves(node) else None
    before, after = rewriting.shape(node.inputs[0]), node.shapes[0]
    is_kept = after[:1] == before[:1] != (None,) and after.count(None) == 1
    is_first = mover.shape is None and _RESHAPE(node.head)
    return _Moved((*mover.names, node.name), mover.axes, after) if is_first and is_kept else None


def _without(movers: Collection[str], graph: Graph) -> Graph:
    """Removes transpositions that no node needs any more, and the reshapes after them."""
    for _ in range(2):
        needed = {edge.node for edge in (*graph.consumers(), *graph.output_edges)}
        unused = set(movers) & graph.nodes.keys() - needed
        kept = [node for node in graph.nodes.values() if node.name not in unused]
        graph = graph.replace(kept, {}) if unused else graph
    return graph


def _transposed(x: Any, axes: Any) -> Any:
    return x if list(axes) == sorted(axes) else ops.transpose(x, axes)


def _index(node: Node, mover: _Moved) -> Write | None:
    _, key = [*node.arguments[0], *node.arguments[1].values()]
    first, *rest = key if isinstance(key, list | tuple) else (key,)
    if isinstance(first, bool) or not isinstance(first, int):
        return None

    def write(x: Any, mover: _Moved) -> list[Any]:
        y = mover.part(x, 0, first)
        return [y[tuple(rest)] if rest else y]

    return write


def _unstack(node: Node, mover: _Moved) -> Write | None:
    count, axis = len(node.shapes), node.head.axis
    if mover.shape is not None and axis != 0:
        return None
    return lambda x, mover: [mover.part(x, axis, i) for i in range(count)]


def _split(node: Node, mover: _Moved) -> Write | None:
    sections, axis = node.head.indices_or_sections, node.head.axis
    if mover.shape is not None:
        return None

    def write(x: Any, mover: _Moved) -> list[Any]:
        parts = ops.split(x, sections, axis=mover.axes[axis])
        return [_transposed(y, mover.axes) for y in parts]

    return write


def _squeeze(node: Node, mover: _Moved) -> Write | None:
    axis = node.head.axis
    if not isinstance(axis, int) or (mover.shape is not None and axis != 0):
        return None
    return lambda x, mover: [mover.part(x, axis, 0)]


# The function that writes each operation.
_WRITERS: dict[str, Callable[[Node, _Moved], Write | None]] = {
    "GetItem": _index,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unstack": _unstack,
}
