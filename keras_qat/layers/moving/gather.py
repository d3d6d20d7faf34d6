"""GATHER: repeated or reordered values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Node, operation_named
from keras_qat.graph.graph import Parameter
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import batch_moved, sample_sizes
from keras_qat.scheme import Scheme


@register(operation_named("Repeat", "Roll", "Take"))
@keras.saving.register_keras_serializable("keras_qat")
class QGather(MovesValues):
    """Takes constant positions of one axis, in any order and number: one GATHER.

    The layer replaces `ops.repeat`, `ops.roll` along one axis, and `ops.take` of constant indices.

    Args:
        indices: The positions, nested as deep as the axes that they become. An integer drops the
            axis. Negative positions count from the end.
        axis: The axis of the input, at least 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QGather([2, 0, 0], axis=1)(np.array([[1.0, 2.0, 3.0]])).numpy().tolist()
    [[3.0, 1.0, 1.0]]
    """

    operators = ("GATHER",)

    def __init__(self, indices: Any, axis: int, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.indices, self.axis = np.array(indices, "int32"), axis
        if axis < 1:
            raise batch_moved(self.name, f"axis={axis}")

    def build(self, input_shape):
        """Checks that the positions exist."""
        size = input_shape[self.axis]
        if size is None or self.indices.min() < -size or self.indices.max() >= size:
            raise UnsupportedLayerError(
                "Values beyond the end of an axis depend on the backend.",
                layer=self.name,
                received=f"positions {self.indices.min()} to {self.indices.max()}",
                expected=f"positions on axis {self.axis} of an input of shape {input_shape}",
                fix="Correct the indices.",
            )
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape with the axis replaced by the axes of the indices."""
        before, after = input_shape[: self.axis], input_shape[self.axis + 1 :]
        return (*before, *self.indices.shape, *after)

    def float_forward(self, inputs, training=None):
        """Takes the values."""
        del training
        return ops.take(inputs, self._positions(inputs.shape), axis=self.axis)

    def lower(self, builder, *inputs):
        """Adds one GATHER."""
        return builder.operator(
            "GATHER",
            (inputs[0], builder.constant("indices", self._positions(inputs[0].shape))),
            options={"axis": self.axis},
        )

    def _positions(self, shape) -> np.ndarray:
        return self.indices % np.int32(shape[self.axis])

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer from the positions that the operation takes.

        Raises:
            UnsupportedLayerError: If the positions are not constant, or lie on several axes.
        """
        indices, axis = _INDICES[type(node.head).__name__](node)
        return cls(indices, axis, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "indices": self.indices.tolist(), "axis": self.axis}


@register(operation_named("Tile", "BroadcastTo"))
@keras.saving.register_keras_serializable("keras_qat")
class QTile(MovesValues):
    """Repeats a tensor along its axes until it has a given shape: a GATHER for each axis.

    The layer replaces `ops.tile`, and `ops.broadcast_to` of the same rank. LiteRT's TILE would be
    one operator, but int8 needs its version 3, which is recent and which the reference kernels
    lack.

    Args:
        sizes: Shape of the output, without the batch; multiples of the input's.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QTile([4])(np.array([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0, 1.0, 2.0]]
    """

    operators = ("GATHER", "RESHAPE")

    def __init__(self, sizes: Sequence[int], *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.sizes = tuple(sizes)

    def build(self, input_shape):
        """Checks that the rank, and with it the batch axis, does not change."""
        if len(input_shape) != len(self.sizes) + 1:
            raise batch_moved(self.name, f"an input of shape {input_shape} tiled to {self.sizes}")
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the given shape."""
        return (input_shape[0], *self.sizes)

    def float_forward(self, inputs, training=None):
        """Repeats the values."""
        del training
        return ops.tile(inputs, self._multiples(inputs.shape))

    def lower(self, builder, *inputs):
        """Adds a GATHER for each axis that grows, or a RESHAPE if no axis grows."""
        x = inputs[0]
        counts = self._multiples(x.shape)
        grown = [axis for axis, count in enumerate(counts) if count > 1]
        for axis in grown:
            shape = (*x.shape[:axis], self.sizes[axis - 1], *x.shape[axis + 1 :])
            positions = np.tile(np.arange(x.shape[axis], dtype="int32"), counts[axis])
            x = builder.operator(
                "GATHER",
                (x, builder.constant(f"axis{axis}/indices", positions)),
                part=None if axis == grown[-1] else f"axis{axis}",
                shape=shape,
                options={"axis": axis},
            )
        return x if grown else builder.reshape(x, builder.output_shape)

    def _multiples(self, shape) -> tuple[int, ...]:
        return (1, *(new // old for new, old in zip(self.sizes, shape[1:], strict=True)))

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer from the shape of the node's output."""
        repeats = getattr(node.head, "repeats", 1)
        if np.size(repeats) >= len(node.shapes[0]) and np.ravel(repeats)[0] != 1:
            raise batch_moved(node.name, f"repeats={repeats}")
        return cls(sample_sizes(node), name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "sizes": self.sizes}


def constant_integers(name: str, value: Any) -> np.ndarray:
    """Returns an operand that contains positions or counts as an array.

    Args:
        name: Name of the operation.
        value: The operand: a number, a sequence of them, an array or a `Parameter`.

    Returns:
        int32 array.

    Raises:
        UnsupportedLayerError: If the operand is computed from the model's inputs, or trained.
    """
    if isinstance(value, Parameter) and not value.trainable:
        value = value.value
    leaves = keras.tree.flatten(value)
    computed = Edge | Parameter | keras.Variable | keras.KerasTensor
    if any(isinstance(leaf, computed) for leaf in leaves):
        raise UnsupportedLayerError(
            "The operator selects values by constant positions, not by computed positions.",
            layer=name,
            received="positions that the model computes",
            expected="constant integers",
            fix="Pass a list or a numpy array of integers.",
        )
    return ops.convert_to_numpy(value).astype("int32")


def _single_axis(node: Node, rank: int) -> int:
    axis = node.head.axis
    if np.size(axis) != 1 or axis is None:
        raise UnsupportedLayerError(
            "Values can be moved along one axis at a time.",
            layer=node.name,
            received=f"axis={axis}",
            expected="one axis, not the first",
            fix="Call the operation once for each axis.",
        )
    axis = int(np.ravel(axis)[0])
    return axis + rank if axis < 0 else axis


def _axis_of_output(node: Node) -> tuple[int, int]:
    """Returns the axis of an operation that keeps the rank, and its size in the output."""
    axis = _single_axis(node, len(node.shapes[0]))
    if axis == 0:
        raise batch_moved(node.name, f"axis={node.head.axis}")
    return axis, sample_sizes(node)[axis - 1]


def _repeated(node: Node) -> tuple[np.ndarray, int]:
    axis, size = _axis_of_output(node)
    repeats = constant_integers(node.name, node.head.repeats)
    count = size // int(repeats.ravel()[0]) if repeats.size == 1 else repeats.size
    return np.repeat(np.arange(count), repeats), axis


def _rolled(node: Node) -> tuple[np.ndarray, int]:
    axis, size = _axis_of_output(node)
    shift = constant_integers(node.name, node.head.shift)
    return np.roll(np.arange(size), int(np.ravel(shift)[0])), axis


def _taken(node: Node) -> tuple[np.ndarray, int]:
    (_, *rest), keywords = node.arguments
    indices = constant_integers(node.name, rest[0] if rest else keywords["indices"])
    return indices, _single_axis(node, len(node.shapes[0]) - indices.ndim + 1)


# The function that returns indices and axis of each operation.
_INDICES: dict[str, Callable[[Node], tuple[np.ndarray, int]]] = {
    "Repeat": _repeated,
    "Roll": _rolled,
    "Take": _taken,
}
