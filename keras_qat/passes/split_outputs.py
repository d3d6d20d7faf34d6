"""Writes operations with several outputs as operations with one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from keras_qat.graph import Edge, Graph, Node, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.layers import QStridedSlice
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

IS_SPLIT = operation_named("Split", "ArraySplit", "Unstack")


def split_outputs(graph: Graph) -> Graph:
    """Writes `ops.split(x, 2, axis=1)` as the slices `x[:, :n]` and `x[:, n:]`.

    Matches: `ops.split`, `ops.array_split` and `ops.unstack`.
    Builds: one slice for each output that is used.
    Why: a layer of a quantized model makes one tensor. A slice is an operator that copies the
    elements that it needs; LiteRT's SPLIT would copy the same elements.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations do not occur.

    Raises:
        UnsupportedLayerError: If the batch is split.
    """
    used = {*graph.consumers(), *graph.output_edges}
    made: dict[tuple[int, int], QStridedSlice] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not IS_SPLIT(node.head):
            return None
        _check_batch(rewriting.graph(), node)
        find_keys, shape = _KEYS[type(node.head).__name__], rewriting.shape(node.inputs[0])
        nodes: dict[int, Node] = {}
        for i, key in enumerate(find_keys(node, shape)):
            if Edge(node.name, i) in used:
                name = rewriting.free_name(f"{node.name}_{i}")
                layer = QStridedSlice(key, name=name, dtype="float32")
                layer = made.setdefault((id(node.head), i), layer)
                dtype = node.dtypes[i]
                nodes[i] = Node.call(layer, name, node.inputs[0], node.shapes[i], dtype)
        outputs = [Edge(nodes.get(i, node).name) for i in range(len(node.shapes))]
        return Replacement(list(nodes.values()), outputs)

    return replace_nodes(graph, write)


def _check_batch(graph: Graph, node: Node) -> None:
    """Raises if an operation before a node has moved the batch from the first axis."""
    mover = None
    while node.inputs and graph.shape(node.inputs[0])[:1] not in ((None,), ()):
        mover = node = graph.nodes[node.inputs[0].node]
    if mover is not None and node.inputs and None in mover.shapes[0]:
        raise batch_moved(mover.name, f"an output of shape {mover.shapes[0]}")


def _axis(node: Node, shape: Shape) -> int:
    axis = node.head.axis % len(shape)
    if axis == 0:
        raise batch_moved(node.name, f"axis={node.head.axis}")
    return axis


def _key(axis: int, entry: Any) -> list[Any]:
    """Returns the key of a slice that takes all of the axes before this one."""
    return [[None, None, None]] * (axis - 1) + [entry]


def _pieces(node: Node, shape: Shape) -> list[list[Any]]:
    """Returns the slice of each output of a split."""
    axis = _axis(node, shape)
    sizes = [sizes[axis] or 0 for sizes in node.shapes]
    limits = itertools.pairwise([0, *itertools.accumulate(sizes)])
    return [_key(axis, [start, stop, 1]) for start, stop in limits]


def _positions(node: Node, shape: Shape) -> list[list[Any]]:
    """Returns the position of each output of an unstack."""
    axis = _axis(node, shape)
    return [_key(axis, position) for position in range(len(node.shapes))]


# A function for each operation that returns the key of each output.
_KEYS: dict[str, Callable[[Node, Shape], Sequence[list[Any]]]] = {
    "Split": _pieces,
    "ArraySplit": _pieces,
    "Unstack": _positions,
}
