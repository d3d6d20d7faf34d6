"""Pooling to an output of a given size: AVERAGE_POOL_2D and MAX_POOL_2D, and GATHER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.pooling import window_sums
from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.sequences import image_shape, lower_on_image
from keras_qat.layers.pooling.windows import (
    add_pooling,
    average_centered,
    check_pooled,
    window_counts,
)
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


class AxisWindows(NamedTuple):
    """The pooling along one axis.

    Attributes:
        sizes: The distinct sizes of the windows.
        stride: Distance between pooled windows.
        positions: Positions of the required windows among the pooled windows, which are ordered by
            size; None if all are required in order.
    """

    sizes: tuple[int, ...]
    stride: int
    positions: np.ndarray | None


class AdaptivePooling(MovesValues):
    """Base class of poolings from `n` to `m` values: `i * n // m` to `ceil((i + 1) * n / m)`.

    If windows have several sizes, all windows of each size are pooled, and the required windows are
    gathered.

    Args:
        output_size: Size of each axis between the batch and the channels.
        data_format: Only `"channels_last"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        operator_code: The LiteRT operator.
    """

    operator_code: str

    def __init__(
        self,
        output_size: Sequence[int],
        data_format: str = "channels_last",
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.output_size, self.data_format = tuple(output_size), data_format

    def build(self, input_shape):
        """Checks the layout and that the sizes are known."""
        check_pooled(self, input_shape)
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the pooled shape."""
        return (input_shape[0], *self.output_size, input_shape[-1])

    def lower(self, builder, *inputs):
        """Adds one pooling if windows are regular; else one for each size, and GATHERs."""

        def add(x, **output):
            pooled_shape = image_shape(builder.output_shape)
            pairs = zip(x.shape[1:3], pooled_shape[1:3], strict=True)
            vertical, horizontal = (_axis_windows(*pair) for pair in pairs)
            own = {"part": None, **output, "shape": pooled_shape}
            last = 2 if vertical.positions is None else 1
            if horizontal.positions is None and last == 2:
                return self._pool(builder, x, vertical, horizontal, (0, 0), own)
            rows = []
            for i in range(len(vertical.sizes)):
                columns = [
                    self._pool(builder, x, vertical, horizontal, (i, j), {"part": f"pool_{i}_{j}"})
                    for j in range(len(horizontal.sizes))
                ]
                name = own if last == 2 else {"part": f"row_{i}"}
                rows.append(_select(builder, columns, horizontal.positions, 2, name))
            return _select(builder, rows, vertical.positions, 1, own)

        return lower_on_image(builder, inputs[0], add)

    def _pool(self, builder, x, vertical, horizontal, sizes, output):
        window = vertical.sizes[sizes[0]], horizontal.sizes[sizes[1]]
        strides = vertical.stride, horizontal.stride
        spatial = zip(x.shape[1:3], window, strides, strict=True)
        shape = (x.shape[0], *((n - w) // s + 1 for n, w, s in spatial), x.shape[3])
        return add_pooling(
            builder, self.operator_code, x, window, strides, **{"shape": shape, **output}
        )

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, also for an operation."""
        head = node.head
        return cls(head.output_size, head.data_format, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"output_size": self.output_size, "data_format": self.data_format}
        return {**super().get_config(), **own}


@register(
    any_of(
        layer_of(keras.layers.AdaptiveMaxPooling1D, keras.layers.AdaptiveMaxPooling2D),
        operation_named("AdaptiveMaxPool"),
    )
)
@keras.saving.register_keras_serializable("keras_qat")
class QAdaptiveMaxPooling(AdaptivePooling):
    """Max pooling to a given size, with the range of its input: MAX_POOL_2D, and GATHER.

    Args:
        output_size: Size of each axis between the batch and the channels.
        data_format: Only `"channels_last"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> QAdaptiveMaxPooling([2])(x).numpy().ravel().tolist()
    [2.0, 3.0]
    """

    operators = ("MAX_POOL_2D", "GATHER", "CONCATENATION", "RESHAPE")
    operator_code = "MAX_POOL_2D"

    def float_forward(self, inputs, training=None):
        """Pools."""
        del training
        return ops.adaptive_max_pool(inputs, self.output_size, self.data_format)


@register(
    any_of(
        layer_of(keras.layers.AdaptiveAveragePooling1D, keras.layers.AdaptiveAveragePooling2D),
        operation_named("AdaptiveAveragePool"),
    )
)
@keras.saving.register_keras_serializable("keras_qat")
class QAdaptiveAveragePooling(AdaptivePooling):
    """Average pooling to a given size, with the range of its input: AVERAGE_POOL_2D, and GATHER.

    Args:
        output_size: Size of each axis between the batch and the channels.
        data_format: Only `"channels_last"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> QAdaptiveAveragePooling([2])(x).numpy().ravel().tolist()
    [1.5, 2.5]
    """

    operators = ("AVERAGE_POOL_2D", "GATHER", "CONCATENATION", "RESHAPE")
    operator_code = "AVERAGE_POOL_2D"

    def float_forward(self, inputs, training=None):
        """Pools."""
        del training
        return ops.adaptive_average_pool(inputs, self.output_size, self.data_format)

    def training_forward(self, inputs):
        """Averages and rounds to the grid of the input."""
        return self.quantize_output(self.float_forward(inputs, training=True))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Sums integers, then divides rounding half away from zero."""
        values = inputs[0].values
        pairs = zip(values.shape[1:-1], self.output_size, strict=True)
        limits = [_limits(*pair) for pair in pairs]
        sums = ops.cast(values, "int32")
        for axis, (starts, stops) in enumerate(limits, start=1):
            sums = window_sums(sums, starts, stops, axis)
        counts = window_counts([np.subtract(stops, starts) for starts, stops in limits])
        return average_centered(sums, ops.convert_to_tensor(counts), output.zero_point)


def _limits(size: int, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the start and the stop of each window."""
    starts = tuple(i * size // count for i in range(count))
    return starts, tuple(-(-(i + 1) * size // count) for i in range(count))


def _axis_windows(size: int, count: int) -> AxisWindows:
    """Returns the pooling of an axis: one operator if windows have equal sizes and distances."""
    starts, stops = np.array(_limits(size, count))
    sizes = stops - starts
    steps = set(np.diff(starts).tolist()) or {1}
    if len({*sizes}) == len(steps) == 1 and min(steps) > 0:
        return AxisWindows((int(sizes[0]),), steps.pop(), None)
    distinct = np.unique(sizes)
    pooled = size - distinct + 1
    offsets = dict(zip(distinct.tolist(), np.cumsum(pooled) - pooled, strict=True))
    positions = starts + [offsets[each] for each in sizes.tolist()]
    return AxisWindows(tuple(distinct.tolist()), 1, positions.astype("int32"))


def _select(builder, parts, positions, axis: int, output: dict):
    """Adds the operators that join tensors along an axis and take positions of it."""
    x = parts[0]
    if positions is None:
        return x

    def resized(size):
        return (*x.shape[:axis], size, *x.shape[axis + 1 :])

    name = output["part"] or "pooled"
    if len(parts) > 1:
        x = builder.operator(
            "CONCATENATION",
            parts,
            part=f"{name}_joined_{axis}",
            shape=resized(sum(part.shape[axis] for part in parts)),
            options={"axis": axis},
        )
    return builder.operator(
        "GATHER",
        (x, builder.constant(f"positions_{axis}", positions)),
        options={"axis": axis},
        **{**output, "shape": resized(len(positions))},
    )
