"""STRIDED_SLICE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.gather import constant_integers
from keras_qat.layers.moving.reshape import batch_moved, check_channels_last
from keras_qat.scheme import Scheme

# An entry of a key, in a serializable form: an index, [start, stop, step], None for a new axis.
Entry = int | Sequence[int | None] | None


class Slicing(MovesValues):
    """Base class of layers that are one STRIDED_SLICE, and a RESHAPE if the rank changes.

    Attributes:
        ranges: Positions of each axis but the first that are kept, in order.
        sizes: Shape of a sample of the output.
    """

    activation_bits = (8, 16)
    ranges: tuple[range, ...] = ()
    sizes: tuple[int, ...] = ()

    def entries(self, input_shape) -> tuple[Entry, ...]:
        """Returns the key, without the batch axis."""
        raise NotImplementedError

    def build(self, input_shape):
        """Resolves the key for the shape of the input."""
        self.ranges, self.sizes = self._resolved(tuple(input_shape))
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the selected values."""
        return (input_shape[0], *self._resolved(tuple(input_shape))[1])

    def float_forward(self, inputs, training=None):
        """Slices. Negative steps are flips, since not all backends support negative steps."""
        del training
        forward = [kept if kept.step > 0 else kept[::-1] for kept in self.ranges]
        key = [slice(kept.start, kept.stop, kept.step) for kept in forward]
        backwards = [axis for axis, kept in enumerate(self.ranges, start=1) if kept.step < 0]
        x = inputs[(slice(None), *key)]
        x = ops.flip(x, backwards) if backwards else x
        return ops.reshape(x, (-1, *self.sizes)) if self._changes_rank() else x

    def lower(self, builder, *inputs):
        """Adds one STRIDED_SLICE, and a RESHAPE if the rank changes."""
        shape = (inputs[0].shape[0], *(len(kept) for kept in self.ranges))
        if not self._changes_rank():
            return self._sliced(builder, inputs[0], shape, part=None)
        x = inputs[0]
        # The shape alone is not enough, since a flip keeps it.
        if self.ranges != tuple(range(size) for size in x.shape[1:]):
            x = self._sliced(builder, x, shape, part="sliced")
        return builder.reshape(x, builder.output_shape)

    def _sliced(self, builder, x, shape, *, part):
        # In the kernel a stop below 0 counts from the end, so the size is subtracted from it.
        stops = [
            kept.stop if kept.stop >= 0 else kept.stop - size
            for kept, size in zip(self.ranges, x.shape[1:], strict=True)
        ]
        operands = {
            "begin": [0, *(kept.start for kept in self.ranges)],
            "end": [0, *stops],
            "strides": [1, *(kept.step for kept in self.ranges)],
        }
        constants = [
            builder.constant(role, np.array(values, "int32")) for role, values in operands.items()
        ]
        return builder.operator(
            "STRIDED_SLICE",
            (x, *constants),
            part=part,
            shape=shape,
            options={"beginMask": 1, "endMask": 1},  # any size of the batch
        )

    def _changes_rank(self) -> bool:
        return self.sizes != tuple(len(kept) for kept in self.ranges)

    def _resolved(self, shape) -> tuple[tuple[range, ...], tuple[int, ...]]:
        """Returns the kept positions of each axis, and the shape of a sample of the output."""
        ranges, sizes = [], []
        left = list(shape[1:])
        for entry in self.entries(shape):
            if entry is None:
                sizes.append(1)
                continue
            size = left.pop(0)
            kept = range(0) if size is None else _kept(entry, size)
            if not kept:
                raise self._refused(entry, shape)
            ranges.append(kept)
            if not isinstance(entry, int):
                sizes.append(len(kept))
        rest = [range(size) for size in left]
        return (*ranges, *rest), (*sizes, *left)

    def _refused(self, entry: Entry, shape) -> UnsupportedLayerError:
        return UnsupportedLayerError(
            "A slice must select something, of axes whose size is known.",
            layer=self.name,
            received=f"{entry} of an input of shape {shape}",
            fix="Correct the index.",
        )


@register(operation_named("GetItem", "Slice", "Flip"))
@keras.saving.register_keras_serializable("keras_qat")
class QStridedSlice(Slicing):
    """Indexing `x[:, key]` by integers, slices and new axes: one STRIDED_SLICE.

    Args:
        key: One entry for each axis but the first: an integer, `[start, stop, step]` with None for
            omitted parts, or None for a new axis.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> x = np.arange(6, dtype="float32").reshape(1, 2, 3)
    >>> QStridedSlice([1, [None, None, -1]])(x).numpy().tolist()
    [[5.0, 4.0, 3.0]]
    """

    operators = ("STRIDED_SLICE", "RESHAPE")

    def __init__(self, key: Sequence[Entry], *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.key = tuple(key)

    def entries(self, input_shape):
        """Returns the key."""
        del input_shape
        return self.key

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer from the key of the call.

        Raises:
            UnsupportedLayerError: If the key takes part of the batch, or is a tensor or array.
        """
        key = _KEYS[type(node.head).__name__](node)
        return cls(_without_batch(node, key), name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "key": self.key}


@register(layer_of(keras.layers.CenterCrop))
@keras.saving.register_keras_serializable("keras_qat")
class QCenterCrop(Slicing):
    """Crops the middle of an image: one STRIDED_SLICE.

    Args:
        height: Height of the output, at most that of the input.
        width: Width of the output, at most that of the input.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    operators = ("STRIDED_SLICE",)

    def __init__(self, height: int, width: int, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.height, self.width = height, width

    def entries(self, input_shape):
        """Returns the ranges of the window in the middle."""
        sizes = self.height, self.width
        starts = [(old - new) // 2 for old, new in zip(input_shape[1:3], sizes, strict=True)]
        if len(input_shape) != 4 or min(starts) < 0:
            raise UnsupportedLayerError(
                "Where the image is smaller than the crop, Keras resizes it instead.",
                layer=self.name,
                received=f"an input of shape {tuple(input_shape)}",
                expected=f"a batch of images of at least {self.height} by {self.width}",
                fix="Use `keras.layers.Resizing`.",
            )
        return tuple([start, start + size, 1] for start, size in zip(starts, sizes, strict=True))

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer."""
        check_channels_last(node.name, node.head.data_format)
        return cls(node.head.height, node.head.width, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "height": self.height, "width": self.width}


def _kept(entry: int | Sequence[int | None], size: int) -> range:
    """Returns the positions of an axis that an entry selects, none if it lies outside."""
    if isinstance(entry, int):
        position = entry + size if entry < 0 else entry
        return range(position, position + 1) if 0 <= position < size else range(0)
    kept = range(*slice(*entry).indices(size))
    # Several ranges give the same selection. This range ends directly after the last position.
    return range(kept.start, kept[-1] + (1 if kept.step > 0 else -1), kept.step) if kept else kept


def _indexed(node: Node) -> tuple[Any, ...]:
    (_, *rest), keywords = node.arguments
    key = rest[0] if rest else keywords["key"]
    return tuple(key) if isinstance(key, list | tuple) else (key,)


def _windowed(node: Node) -> tuple[Any, ...]:
    (_, *rest), keywords = node.arguments
    starts = constant_integers(node.name, rest[0] if rest else keywords["start_indices"])
    windows = zip(starts.tolist(), node.shapes[0], strict=True)
    (start, _), *others = windows
    batch = slice(None) if start == 0 else slice(start, None)
    return (batch, *(slice(start, start + size) for start, size in others))


def _flipped(node: Node) -> tuple[Any, ...]:
    rank, axis = len(node.shapes[0]), node.head.axis
    axes = range(rank) if axis is None else np.atleast_1d(axis) % rank
    return tuple(slice(None, None, -1 if i in axes else None) for i in range(rank))


# The function that returns the key of each operation.
_KEYS: dict[str, Callable[[Node], tuple[Any, ...]]] = {
    "GetItem": _indexed,
    "Slice": _windowed,
    "Flip": _flipped,
}


def _entry(name: str, part: Any) -> Entry:
    """Returns one part of a key in a serializable form."""
    if part is None:
        return None
    if isinstance(part, slice):
        limits = [part.start, part.stop, part.step]
        return [None if limit is None else _index(name, limit) for limit in limits]
    return _index(name, part)


def _index(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UnsupportedLayerError(
            "An index must be known when the model is made.",
            layer=name,
            received=f"an index of type {type(value).__name__}",
            expected="integers, slices of integers, `...` and `None`",
            fix="For constant positions use `keras.ops.take`.",
        )
    return int(value)


def _without_batch(node: Node, key: tuple[Any, ...]) -> list[Entry]:
    """Returns all entries of a key after the entry of the whole batch, with `...` expanded."""
    parts = [part if part is Ellipsis else (_entry(node.name, part),) for part in key]
    entries = [part[0] for part in parts if part is not Ellipsis]
    given = len(entries) - entries.count(None)
    indices = sum(isinstance(entry, int) for entry in entries)
    rank = len(node.shapes[0]) - entries.count(None) + indices
    whole: list[Entry] = [[None, None, None]]
    written: list[Entry] = []
    for part in parts:
        written += whole * (rank - given) if part is Ellipsis else part
    first, *others = written or whole
    if not isinstance(first, list) or first[0] not in (None, 0) or first[1:] not in _TO_THE_END:
        raise batch_moved(node.name, f"the index {key}")
    return others


_TO_THE_END = ([None, None], [None, 1])
