"""Writes operations with several outputs as operations with one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.layers import QStridedSlice, QTopPositions, QTopValues, QuantizedLayer
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

# Makes a layer, given its name and dtype.
Maker = Callable[..., QuantizedLayer]

IS_SPLIT = operation_named("Split", "ArraySplit", "TopK", "Unstack")


def split_outputs(graph: Graph) -> Graph:
    """Writes `ops.split(x, 2, axis=1)` as the slices `x[:, :n]` and `x[:, n:]`.

    Matches: `ops.split`, `ops.array_split`, `ops.unstack` and `ops.top_k`.
    Builds: one slice for each output that is used. For `ops.top_k`, one layer for the values and
    one for their positions, which are one operator in the file.
    Why: a layer of a quantized model makes one tensor. A slice is an operator that copies the
    elements that it needs; LiteRT's SPLIT would copy the same elements.

    Args:
        graph: The graph.

    Returns:
        A graph in which these operations do not occur.

    Raises:
        UnsupportedLayerError: If the batch is split, or `ops.top_k` does not sort.
    """
    used = {*graph.consumers(), *graph.output_edges}
    made: dict[tuple[int, int], QuantizedLayer] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not IS_SPLIT(node.head):
            return None
        _check_batch(rewriting.graph(), node)
        find_layers, shape = _LAYERS[type(node.head).__name__], rewriting.shape(node.inputs[0])
        nodes: dict[int, Node] = {}
        for i, make in enumerate(find_layers(node, shape)):
            if Edge(node.name, i) in used:
                name = rewriting.free_name(f"{node.name}_{i}")
                key = id(node.head), i
                made[key] = layer = made.get(key) or make(name=name, dtype="float32")
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


def _slice(axis: int, entry: Any) -> Maker:
    """Returns the function that makes a slice that takes all of the axes before this one."""
    return functools.partial(QStridedSlice, [[None, None, None]] * (axis - 1) + [entry])


def _pieces(node: Node, shape: Shape) -> list[Maker]:
    """Returns the slice of each output of a split."""
    axis = _axis(node, shape)
    sizes = [sizes[axis] or 0 for sizes in node.shapes]
    limits = itertools.pairwise([0, *itertools.accumulate(sizes)])
    return [_slice(axis, [start, stop, 1]) for start, stop in limits]


def _positions(node: Node, shape: Shape) -> list[Maker]:
    """Returns the slice of each output of an unstack."""
    axis = _axis(node, shape)
    return [_slice(axis, position) for position in range(len(node.shapes))]


def _largest(node: Node, shape: Shape) -> list[Maker]:
    """Returns the layer of each output of `ops.top_k`."""
    if len(shape) == 1:
        raise batch_moved(node.name, "a tensor of one axis")
    if not node.head.sorted:
        raise UnsupportedLayerError(
            "LiteRT returns the largest values in descending order.",
            layer=node.name,
            received="sorted=False",
            expected="sorted=True",
            fix="Leave `sorted` out: the values are the same.",
        )
    return [functools.partial(layer, node.head.k) for layer in (QTopValues, QTopPositions)]


# A function for each operation that returns the layer of each output.
_LAYERS: dict[str, Callable[[Node, Shape], Sequence[Maker]]] = {
    "ArraySplit": _pieces,
    "Split": _pieces,
    "TopK": _largest,
    "Unstack": _positions,
}
