"""Moves the channels of `data_format="channels_first"` to the last axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.graph import Edge, Graph, Node, Parameter, any_of, layer_of, operation_named
from keras_qat.graph.graph import Shape, map_edges, unique_name
from keras_qat.graph.keras_internals import shallow_copy
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.drop_in import copy_by_path, remade
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.passes.move_normalized_axes import on_last_axis
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

# Operations that compute each element from the elements at its place.
_ELEMENTWISE = any_of(
    layer_of(
        keras.layers.ActivityRegularization,
        keras.layers.Add,
        keras.layers.Average,
        keras.layers.Dropout,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.Maximum,
        keras.layers.Minimum,
        keras.layers.Multiply,
        keras.layers.Subtract,
    ),
    operation_named(
        "Add", "Divide", "Maximum", "Minimum", "Multiply", "Negative", "Subtract", "TrueDivide"
    ),
)
_ALONG_AXIS = any_of(layer_of(keras.layers.Concatenate), operation_named("Concatenate", "Split"))


def move_channels_last(graph: Graph) -> Graph:
    """Writes layers with `data_format="channels_first"` as layers with channels last.

    Matches: a layer or operation of Keras with that layout. After it, element-wise operations,
    concatenations, splits, and batch normalizations over the channels.
    Builds: the same with channels last, and copies of the weights, whose shapes are the same. The
    channels are transposed where a tensor enters these operations and where it leaves them.
    Why: LiteRT's kernels take channels last only. One transposition at the start of a network and
    one at its end cost little.

    Args:
        graph: The graph.

    Returns:
        A graph in which all layouts are `"channels_last"`.
    """
    layouts = _Layouts()

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        call = _Call(node, rewriting, layouts)
        if _has_channels_first(node.head):
            return call.on_channels_last(layouts.channels_last(node.head, call.source_shape))
        if not any(edge in layouts.moved for edge in node.inputs):
            return None
        operation = _follower(node, call.shapes, layouts)
        return call.on_channels_first() if operation is None else call.on_channels_last(operation)

    return _with_outputs_first(replace_nodes(graph, write), layouts)


class _Layouts:
    """The tensors of a graph whose channels are moved to the last axis, and the new operations.

    Attributes:
        moved: The tensors with channels last. Each has the tensor with channels first, or None
            until that is needed.
        last: The tensors with channels first that were transposed. Each has the result.
    """

    def __init__(self):
        self.moved: dict[Edge, Edge | None] = {}
        self.last: dict[Edge, Edge] = {}
        self._made: dict[int, Any] = {}

    def channels_last(self, head: Any, shape: Shape) -> Any:
        """Returns a layer or an operation for inputs of a shape with channels last."""
        return self._once(head, lambda: _changed(head, "data_format", "channels_last", shape))

    def along(self, head: Any, axis: int) -> Any:
        """Returns a concatenation or a split along another axis."""
        return self._once(head, lambda: _changed(head, "axis", axis))

    def normalizing(self, head: Any, shape: Shape) -> Any:
        """Returns a batch normalization over the last axis."""
        return self._once(head, lambda: on_last_axis(head, shape))

    def _once(self, head: Any, make: Callable[[], Any]) -> Any:
        if id(head) not in self._made:
            self._made[id(head)] = make()
        return self._made[id(head)]


def _changed(head: Any, name: str, value: Any, shape: Shape | None = None) -> Any:
    """Returns an operation with another value of an argument, built for a shape if it has one."""
    if not isinstance(head, keras.layers.Layer):
        made = shallow_copy(head)
        vars(made)[name] = value
        return made
    layer = remade(type(head), head, **{name: value})
    if shape is not None:
        layer.build(shape)
        copy_by_path(head, layer)
    layer.trainable = head.trainable
    return layer


class _Call:
    """A node that is rewritten.

    Args:
        node: The node. Some of its inputs may be tensors with channels last.
        rewriting: The graph.
        layouts: The layouts of its tensors.
    """

    def __init__(self, node: Node, rewriting: Rewriting, layouts: _Layouts):
        self._node, self._rewriting, self._layouts = node, rewriting, layouts
        self._added: list[Node] = []

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of its inputs."""
        return [self._rewriting.shape(edge) for edge in self._node.inputs]

    @property
    def source_shape(self) -> Shape:
        """The shape of its first input, with channels last."""
        is_moved = self._node.inputs[0] in self._layouts.moved
        return self.shapes[0] if is_moved else _last(self.shapes[0])

    def on_channels_last(self, operation: Any) -> Replacement:
        """Returns the call of an operation on tensors with channels last."""
        rank = len(self.shapes[0])
        sources = {edge: self._channels_last(edge) for edge in dict.fromkeys(self._node.inputs)}
        node = dataclasses.replace(self._node.rewired(sources), operations=(operation,))
        if _is_elementwise(operation):
            moved = tree.map_structure(lambda leaf: _moved_constant(leaf, rank), node.arguments)
            node = dataclasses.replace(node, arguments=moved)
        outputs = [Edge(node.name, i) for i in range(len(node.shapes))]
        if rank > 2 and len(node.shapes[0]) == rank:
            node = dataclasses.replace(node, shapes=tuple(map(_last, node.shapes)))
            self._layouts.moved |= dict.fromkeys(outputs)
        return Replacement([*self._added, node], outputs)

    def on_channels_first(self) -> Replacement:
        """Returns the same call on tensors with channels first."""
        edges = [edge for edge in dict.fromkeys(self._node.inputs) if edge in self._layouts.moved]
        node = self._node.rewired({edge: self._channels_first(edge) for edge in edges})
        outputs = [Edge(node.name, i) for i in range(len(node.shapes))]
        return Replacement([*self._added, node], outputs)

    def _channels_last(self, edge: Edge) -> Edge:
        if edge in self._layouts.moved or len(self._rewriting.shape(edge)) < 3:
            return edge
        if edge not in self._layouts.last:
            self._layouts.last[edge] = self._transposed(edge, "channels_last", _last)
        return self._layouts.last[edge]

    def _channels_first(self, edge: Edge) -> Edge:
        known = self._layouts.moved[edge] or self._transposed(edge, "channels_first", _first)
        self._layouts.moved[edge] = known
        return known

    def _transposed(self, edge: Edge, suffix: str, order: Callable[[Any], Any]) -> Edge:
        name = self._rewriting.free_name(f"{edge.node}_{suffix}")
        self._added.append(_transposition(name, edge, self._rewriting.shape(edge), order))
        return Edge(name)


def _transposition(name: str, edge: Edge, shape: Shape, order: Callable[[Any], Any]) -> Node:
    axes = order(tuple(range(len(shape))))
    return Node.call(keras.layers.Permute(axes[1:], name=name), name, edge, order(shape))


def _last(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Moves the second entry to the end."""
    return (sizes[0], *sizes[2:], sizes[1]) if len(sizes) > 2 else tuple(sizes)


def _first(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Moves the last entry to the second place."""
    return (sizes[0], sizes[-1], *sizes[1:-1])


def _is_elementwise(head: Any) -> bool:
    return _ELEMENTWISE(head) or FUSED(head) or function_of(head) is not None


def _has_channels_first(head: Any) -> bool:
    is_own = type(head).__module__.startswith("keras.src.")
    return is_own and getattr(head, "data_format", None) == "channels_first"


def _follower(node: Node, shapes: Sequence[Shape], layouts: _Layouts) -> Any:
    """Returns the operation for tensors with channels last, or None if it depends on the layout."""
    head, rank = node.head, len(node.shapes[0])
    if len(node.operations) != 1 or any(len(shape) != rank for shape in shapes):
        return None
    if _is_elementwise(head):
        ranks = {_rank(leaf) for leaf in tree.flatten(node.arguments)}
        return head if ranks <= {0, rank} else None
    axis = getattr(head, "axis", None)
    if not isinstance(axis, int):
        return None
    if _ALONG_AXIS(head):
        return layouts.along(head, _last(range(rank)).index(axis % rank))
    is_norm = type(head) is keras.layers.BatchNormalization and axis % rank == 1
    return layouts.normalizing(head, _last(node.shapes[0])) if is_norm else None


def _rank(leaf: Any) -> int | None:
    """Returns the rank of an array in the arguments of a call, 0 for others, None for variables."""
    if isinstance(leaf, keras.Variable):
        return None
    value = leaf.value if isinstance(leaf, Parameter) else leaf
    return len(value.shape) if isinstance(value, np.ndarray) or ops.is_tensor(value) else 0


def _moved_constant(leaf: Any, rank: int) -> Any:
    """Returns a constant with channels last, if it has all axes. Other arguments do not change."""
    if _rank(leaf) != rank:
        return leaf
    axes = _last(range(rank))
    if not isinstance(leaf, Parameter):
        return np.transpose(ops.convert_to_numpy(leaf), axes)
    positions = None if leaf.positions is None else np.transpose(leaf.positions, axes)
    return dataclasses.replace(leaf, value=np.transpose(leaf.value, axes), positions=positions)


def _with_outputs_first(graph: Graph, layouts: _Layouts) -> Graph:
    """Returns the graph whose outputs have their channels where the outputs of the model do."""
    nodes = dict(graph.nodes)

    def plain(edge: Edge) -> Edge:
        """Returns a tensor with channels first, transposed once for all that take it."""
        if edge not in layouts.moved:
            return edge
        if layouts.moved[edge] is None:
            name = unique_name(f"{edge.node}_channels_first", nodes)
            maker = graph.nodes[edge.node]
            added = _transposition(name, edge, graph.shape(edge), _first).made_of(maker)
            nodes[name] = dataclasses.replace(added, scheme=maker.scheme)
            layouts.moved[edge] = Edge(name)
        return layouts.moved[edge] or edge

    outputs = map_edges(plain, graph.outputs)
    return dataclasses.replace(graph, nodes=nodes, outputs=outputs) if layouts.moved else graph
