"""Writes convolutions and poolings over volumes as those over images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.graph.penalties import PENALTIES
from keras_qat.layers.core.drop_in import assign_copy, quiet_config
from keras_qat.layers.core.sequences import check_sizes_known
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes, splice, traced

# The layer that pools the images, by the name of the layer or operation.
_POOLINGS: dict[str, Any] = {
    "AdaptiveAveragePool": keras.layers.AdaptiveAveragePooling2D,
    "AdaptiveAveragePooling3D": keras.layers.AdaptiveAveragePooling2D,
    "AdaptiveMaxPool": keras.layers.AdaptiveMaxPooling2D,
    "AdaptiveMaxPooling3D": keras.layers.AdaptiveMaxPooling2D,
    "AveragePool": keras.layers.AveragePooling2D,
    "AveragePooling3D": keras.layers.AveragePooling2D,
    "MaxPool": keras.layers.MaxPooling2D,
    "MaxPooling3D": keras.layers.MaxPooling2D,
}
# They do not depend on the shape of the kernel.
_ELEMENTWISE = (*PENALTIES, keras.constraints.NonNeg)


def split_volumes(graph: Graph) -> Graph:
    """Writes `Conv3D` as one `Conv2D`, and `MaxPooling3D` as two poolings.

    Matches: `Conv3D` with channels last, `AveragePooling3D`, `MaxPooling3D`, adaptive poolings, and
    poolings of `keras.ops`.
    Builds: for a convolution, one `Conv2D` of the same name with a copy of the weights. All
    output frames are samples of its batch, and the frames that one of them depends on are its
    channels. A kernel over the depth alone convolves images whose height is the depth. For a
    pooling, one over the frames and one over the depth, or one over the whole volume.
    Why: LiteRT convolves volumes in float only. One convolution adds all products in 32 bits and
    rounds once. A sum of convolutions would round once for each.

    Args:
        graph: The graph.

    Returns:
        A graph without these layers.

    Raises:
        UnsupportedLayerError: If a size of the volume is unknown, or a penalty or constraint of
            the kernel depends on its shape.
    """
    images: dict[int, Any] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        layer, main = node.head, None
        shape = rewriting.shape(node.inputs[0]) if node.inputs else ()
        if type(layer) is keras.layers.Conv3D and layer.data_format == "channels_last":
            main = images[id(layer)] = images.get(id(layer)) or _image_layer(layer)
            function = functools.partial(Windows.of(layer).apply, main)
        elif _is_pooling(node, shape):
            function = functools.partial(_pooled, layer)
            if layer.data_format == "channels_first":
                function = _with_channels_moved(function)
        else:
            return None
        _check(node, shape)
        return splice(node, traced(node, rewriting.graph(), function), rewriting, main)

    return replace_nodes(graph, write)


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a convolution over volumes. Each tuple has depth, height and width.

    Attributes:
        kernel_size: The number of taps.
        strides: The distance between windows.
        dilation_rate: The distance between taps.
        padding: `"same"` or `"valid"`.
        groups: The number of groups of channels.
    """

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str
    groups: int

    @classmethod
    def of(cls, layer: Any) -> Windows:
        """Returns the windows of a `Conv3D`."""
        return cls.of_operation(layer, layer.kernel_size, layer.groups)

    @classmethod
    def of_operation(cls, head: Any, kernel_size: Sequence[int], groups: int) -> Windows:
        """Returns the windows of `ops.conv`.

        Args:
            head: The operation, or a layer.
            kernel_size: The number of taps.
            groups: The number of groups of channels.
        """
        strides, dilation = triple(head.strides), triple(head.dilation_rate)
        return cls(tuple(kernel_size), strides, dilation, head.padding, groups)

    @property
    def along_depth(self) -> bool:
        """Whether a window covers one pixel of each of its frames, and every pixel has one."""
        return self.kernel_size[1:] == (1, 1) == self.strides[1:]

    @property
    def image_arguments(self) -> dict[str, Any]:
        """The arguments of the `Conv2D` that computes the convolution."""
        kept = slice(0, 1) if self.along_depth else slice(1, 3)
        names = "kernel_size", "strides", "dilation_rate"
        sizes = {name: (*getattr(self, name)[kept], 1)[:2] for name in names}
        return {**sizes, "padding": self.padding, "groups": self.groups}

    def image_channels(self, channels: int) -> int:
        """Returns the number of channels that this `Conv2D` takes."""
        return channels if self.along_depth else self.kernel_size[0] * channels

    def image_kernel(self, kernel: Any) -> Any:
        """Returns the kernel of that `Conv2D`.

        Args:
            kernel: Array or tensor `(depth, height, width, inputs / groups, filters)`.
        """
        depth, height, width, channels, filters = kernel.shape
        if self.along_depth:
            return kernel.reshape(depth, 1, channels, filters)
        return np.moveaxis(kernel, 0, 2).reshape(height, width, depth * channels, filters)

    def apply(self, convolve: Callable[[Any], Any], x: Any, mask: None = None) -> Any:
        """Applies the convolution to volumes.

        Args:
            convolve: The `Conv2D`.
            x: Symbolic tensor `(batch, depth, height, width, channels)`.
            mask: Not used. Keras passes None.
        """
        del mask
        depth, height, width, channels = x.shape[1:]
        if self.along_depth:
            y = convolve(ops.reshape(x, (-1, depth, height * width, channels)))
            return ops.reshape(y, (-1, y.shape[1], height, width, y.shape[-1]))
        frames, count = self._frames(x)
        y = convolve(frames)
        return ops.reshape(y, (-1, count, *y.shape[1:]))

    def _frames(self, x: Any) -> tuple[Any, int]:
        """Returns the images to convolve, and their number for each sample."""
        taps, stride, gap = self.kernel_size[0], self.strides[0], self.dilation_rate[0]
        reach = (taps - 1) * gap + 1
        depth, height, width, channels = x.shape[1:]
        if self.padding == "same":
            missing = max((-(-depth // stride) - 1) * stride + reach - depth, 0)
            pads = [(0, 0)] * 5
            pads[1] = (missing // 2, missing - missing // 2)
            x, depth = (ops.pad(x, pads) if missing else x), depth + missing
        count = (depth - reach) // stride + 1
        grouped = (self.groups, channels // self.groups)
        if gap == 1 and (taps == stride or count == 1):
            x = x[:, : count * taps] if count * taps < depth else x
            x = ops.reshape(x, (-1, taps, height * width * self.groups, grouped[1]))
            x = ops.transpose(x, (0, 2, 1, 3)) if taps > 1 else x
        else:
            last = (count - 1) * stride + 1
            starts = [tap * gap for tap in range(taps)]
            parts = [x[:, start : start + last : stride] for start in starts]
            if self.groups > 1:
                shape = (-1, count, height * width, *grouped)
                parts = [ops.reshape(part, shape) for part in parts]
            x = ops.concatenate(parts, axis=-1) if taps > 1 else parts[0]
        return ops.reshape(x, (-1, height, width, taps * channels)), count


def _image_layer(layer: Any) -> Any:
    """Returns the `Conv2D` of a `Conv3D`, built, with copies of its weights."""
    names = "filters", "activation", "use_bias", "bias_regularizer", "bias_constraint"
    names += "kernel_regularizer", "kernel_constraint", "activity_regularizer", "trainable"
    windows = Windows.of(layer)
    initializers = {k: v for k, v in quiet_config(layer).items() if k.endswith("_initializer")}
    made = keras.layers.Conv2D(
        **{name: getattr(layer, name) for name in names},
        **initializers,
        **windows.image_arguments,
        name=layer.name,
        dtype="float32",
    )
    # `kernel` has the low-rank updates, if there are any.
    kernel = windows.image_kernel(ops.convert_to_numpy(layer.kernel))
    made.build((None, None, None, windows.image_channels(layer.kernel.shape[-2] * layer.groups)))
    made.kernel.assign(kernel)
    if layer.use_bias:
        assign_copy(made.bias, layer.bias)
    return made


def _with_channels_moved(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, mask=None: ops.moveaxis(function(ops.moveaxis(x, 1, -1)), -1, 1)


def triple(value: Any) -> tuple[int, ...]:
    """Returns the values for depth, height and width."""
    return tuple(np.broadcast_to(value, 3).tolist())


def _is_pooling(node: Node, shape: Sequence[Any]) -> bool:
    """Returns whether a node is a pooling of volumes, a layer or an operation."""
    is_operation = type(node.head).__module__.startswith("keras.src.ops.")
    return type(node.head).__name__ in _POOLINGS and (not is_operation or len(shape) == 5)


def _pooled(head: Any, x: Any, mask: None = None) -> Any:
    """Pools the frames, then the depth."""
    del mask  # Keras passes None
    kind = _POOLINGS[type(head).__name__]
    depth, height, width, channels = x.shape[1:]
    if type(head).__name__.startswith("Adaptive"):
        return _pooled_adaptively(kind, triple(head.output_size), x)
    sizes = triple(head.pool_size)
    strides = sizes if head.strides is None else triple(head.strides)
    if kind is keras.layers.AveragePooling2D and np.all(np.greater_equal(sizes, x.shape[1:4])):
        return keras.layers.GlobalAveragePooling3D(keepdims=True, name="all")(x)
    make = functools.partial(kind, padding=head.padding, dtype="float32")
    y = x
    if (sizes[1:], strides[1:]) != ((1, 1), (1, 1)):
        y = ops.reshape(y, (-1, height, width, channels))
        y = make(sizes[1:], strides[1:], name="frames")(y)
        height, width = y.shape[1:3]
    y = ops.reshape(y, (-1, depth, height * width, channels))
    y = make((sizes[0], 1), (strides[0], 1), name="depth")(y)
    return ops.reshape(y, (-1, y.shape[1], height, width, channels))


def _pooled_adaptively(kind: Any, sizes: Sequence[int], x: Any) -> Any:
    """Pools the frames to a size, then the depth. The windows are products of windows."""
    depth, height, width, channels = x.shape[1:]
    if set(sizes) == {1} and kind is keras.layers.AdaptiveAveragePooling2D:
        return keras.layers.GlobalAveragePooling3D(keepdims=True, name="all")(x)
    y = ops.reshape(x, (-1, height, width, channels))
    y = kind(sizes[1:], name="frames", dtype="float32")(y)
    places = sizes[1] * sizes[2]
    y = ops.reshape(y, (-1, depth, places, channels))
    y = kind((sizes[0], places), name="depth", dtype="float32")(y)
    return ops.reshape(y, (-1, *sizes, channels))


def _check(node: Node, shape: tuple) -> None:
    """Raises if a layer cannot be written with layers for images."""
    check_sizes_known(node.name, shape, "Frames can only be counted if their number is known.")
    for name in ("kernel_regularizer", "kernel_constraint"):
        value = getattr(node.head, name, None)
        if value is not None and not isinstance(value, _ELEMENTWISE):
            raise UnsupportedLayerError(
                "The kernel gets another shape, on which its penalty or constraint depends.",
                layer=node.name,
                received=f"{name}={type(value).__name__}",
                expected="L1, L2 or L1L2 of `keras.regularizers`, or `keras.constraints.NonNeg`",
                fix=f"Use one of these, or leave it out: `layer.{name} = None`.",
            )
