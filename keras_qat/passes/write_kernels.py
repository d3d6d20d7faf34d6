"""Writes operations on a tensor and a kernel as the equivalent Keras layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.contracting import (
    Contraction,
    arranged,
    contraction_of,
    unfolded,
)
from keras_qat.passes.kernel_layers import KernelLayers, share_arithmetic
from keras_qat.passes.rewriting import rewrite_nodes
from keras_qat.passes.split_volumes import Windows, triple

_CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
_DEPTHWISE = {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D}
_TRANSPOSED = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose}
_PLAIN: dict[str, Any] = {"use_bias": False, "dtype": "float32"}


def write_kernels(graph: Graph) -> Graph:
    """Writes `ops.matmul(x, kernel)` as a `Dense`, `ops.conv(x, kernel)` as a `Conv2D`.

    Matches: `ops.matmul`, `dot`, `tensordot`, `einsum`, `conv`, `depthwise_conv`,
    `separable_conv` and `conv_transpose` of one tensor, and of a weight of a custom layer or an
    array. `ops.take` of the rows of such a weight, by ids that the model computes.
    Builds: the Keras layer without a bias, with a copy of the weight. An `Embedding` for `take`,
    and for a convolution over volumes what `split_volumes` builds. A transposed one makes all
    frames that one frame becomes as channels.
    Transposes and reshapes around a `Dense` put its axes in order. A bias that is added after it is
    folded into it later. A weight that is used twice in the same way becomes a layer that is called
    twice. Equal sums and products with one weight become calls of one operation.
    Why: rules match layers. Custom layers consist of operations.

    Args:
        graph: The graph.

    Returns:
        A graph in which kernels are weights of layers.

    Raises:
        UnsupportedLayerError: If a weight would become two weights that train separately.
    """
    kernels = KernelLayers()

    def write(node: Node) -> Callable[..., Any] | None:
        if not type(node.head).__module__.startswith("keras.src.ops") or len(node.inputs) != 1:
            return None
        if _is_lookup(graph, node):
            return functools.partial(_lookup, kernels)
        if type(node.head).__name__ in _WRITERS:
            is_volume = len(graph.shape(node.inputs[0])) == 5
            writers = _WRITERS_FOR_VOLUMES if is_volume else _WRITERS
            convolve = writers.get(type(node.head).__name__)
            if convolve is _transposed_volume and _frames_overlap(node):
                return None
            return None if convolve is None else functools.partial(convolve, node.head, kernels)
        return _dense_of(graph, node, kernels)

    written = share_arithmetic(rewrite_nodes(graph, write))
    kernels.check_tied(written)
    return written


def _dense_of(graph: Graph, node: Node, kernels: KernelLayers) -> Callable[..., Any] | None:
    """Returns the function that replaces a contraction with a constant, if it keeps the batch."""
    read = contraction_of(node, graph.shape)
    if read is None:
        return None
    found, operands = read
    place = next(i for i, leaf in enumerate(operands) if isinstance(leaf, Edge))
    found = found if place == 0 else found.swapped
    if found.batch or not found.summed or not found.a[0] == found.out[0] == found.free(found.a)[0]:
        return None
    return lambda *args, **kwargs: _dense(
        found, kernels, operands[1 - place], _only_tensor([*args, *kwargs.values()])
    )


def _only_tensor(values: list[Any]) -> Any:
    leaves = keras.tree.flatten(values)
    return next(leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor))


def _dense(found: Contraction, kernels: KernelLayers, operand: Any, x: Any) -> Any:
    """Writes a contraction as a Dense layer between transpositions and reshapes."""
    shape = value_of(operand).shape
    sizes = {**dict(zip(found.b, shape, strict=True)), **dict(zip(found.a, x.shape, strict=True))}
    rows, columns = found.free(found.a), found.free(found.b)
    order = [found.b.index(axis) for axis in found.summed + columns]
    units = math.prod(sizes[axis] for axis in columns)
    x = arranged(x, found.a, rows, found.summed)
    layer = kernels.layer(
        operand,
        ("dense", tuple(order), len(found.summed)),
        lambda: keras.layers.Dense(units, kernel_initializer="zeros", name="dense", **_PLAIN),
        x.shape,
        lambda value: np.transpose(value, order).reshape(-1, units),
    )
    axes = rows + columns
    return unfolded(layer(x), axes, [sizes[axis] for axis in axes], found.out)


def _is_lookup(graph: Graph, node: Node) -> bool:
    """Returns whether a node takes the rows of a table by computed positions."""
    operands = [*node.arguments[0], *node.arguments[1].values()]
    if type(node.head).__name__ != "Take" or isinstance(operands[0], Edge):
        return False
    is_first = node.head.axis in (0, -value_of(operands[0]).ndim)
    return is_first and len(graph.shape(node.inputs[0])) > 1


def _lookup(kernels: KernelLayers, x: Any, indices: Any) -> Any:
    """Writes a lookup of rows as an Embedding, and gives the rows the shape of the table's."""
    table = value_of(x).reshape(len(value_of(x)), -1)
    options = {"embeddings_initializer": "zeros", "name": "lookup", "dtype": "float32"}
    layer = kernels.layer(
        x,
        "lookup",
        lambda: keras.layers.Embedding(*table.shape, **options),
        indices.shape,
        lambda value: value.reshape(table.shape),
    )
    shape = value_of(x).shape[1:]
    rows = layer(indices)
    return rows if len(shape) == 1 else ops.reshape(rows, (-1, *indices.shape[1:], *shape))


def _arguments(head: Any, *names: str) -> dict[str, Any]:
    names = ("strides", "padding", "data_format", "dilation_rate", *names)
    given = {name: getattr(head, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def _channels(head: Any, x: Any) -> int:
    return x.shape[1 if head.data_format == "channels_first" else -1]


def _conv(head: Any, kernels: KernelLayers, inputs: Any, kernel: Any) -> Any:
    *window, depth, filters = value_of(kernel).shape
    options = {**_arguments(head), "groups": _channels(head, inputs) // depth}
    options |= {"kernel_initializer": "zeros", **_PLAIN}
    make = functools.partial(_CONVOLUTIONS[len(window)], filters, window, name="conv", **options)
    return kernels.layer(kernel, ("conv", str(options)), make, inputs.shape)(inputs)


def _volume(head: Any, kernels: KernelLayers, inputs: Any, kernel: Any) -> Any:
    *window, depth, filters = value_of(kernel).shape
    windows = Windows.of_operation(head, window, groups=_channels(head, inputs) // depth)
    make = functools.partial(
        keras.layers.Conv2D,
        filters,
        **windows.image_arguments,
        kernel_initializer="zeros",
        name="conv",
        **_PLAIN,
    )
    shape = (None, None, None, windows.image_channels(inputs.shape[-1]))
    use = "volume", windows
    return windows.apply(kernels.layer(kernel, use, make, shape, windows.image_kernel), inputs)


def _depthwise(head: Any, kernels: KernelLayers, inputs: Any, kernel: Any) -> Any:
    *window, _, multiplier = value_of(kernel).shape
    options = {**_arguments(head), "depth_multiplier": multiplier}
    options |= {"depthwise_initializer": "zeros", **_PLAIN}
    make = functools.partial(_DEPTHWISE[len(window)], window, name="depthwise", **options)
    return kernels.layer(kernel, ("depthwise", str(options)), make, inputs.shape)(inputs)


def _separable(
    head: Any, kernels: KernelLayers, inputs: Any, depthwise_kernel: Any, pointwise_kernel: Any
) -> Any:
    between = _depthwise(head, kernels, inputs, depthwise_kernel)
    *window, _, filters = value_of(pointwise_kernel).shape
    make = functools.partial(
        _CONVOLUTIONS[len(window)],
        filters,
        window,
        data_format=head.data_format,
        kernel_initializer="zeros",
        name="pointwise",
        **_PLAIN,
    )
    use = "pointwise", head.data_format
    return kernels.layer(pointwise_kernel, use, make, between.shape)(between)


def _transposed(head: Any, kernels: KernelLayers, inputs: Any, kernel: Any) -> Any:
    *window, filters, _ = value_of(kernel).shape
    options = {**_arguments(head, "output_padding"), "kernel_initializer": "zeros", **_PLAIN}
    make = functools.partial(
        _TRANSPOSED[len(window)], filters, window, name="transposed", **options
    )
    return kernels.layer(kernel, ("transposed", str(options)), make, inputs.shape)(inputs)


def _frames_overlap(node: Node) -> bool:
    """Returns whether a transposed convolution of volumes adds frames to each other."""
    kernel = next(x for x in tree.flatten(node.arguments) if not isinstance(x, Edge))
    head, taps = node.head, value_of(kernel).shape[0]
    is_apart = triple(head.strides)[0] == taps and triple(head.dilation_rate)[0] == 1
    return not is_apart or head.output_padding is not None


def _transposed_volume(head: Any, kernels: KernelLayers, inputs: Any, kernel: Any) -> Any:
    """Makes all frames that one frame becomes as channels, and puts them after each other."""
    taps, *window, filters, channels = value_of(kernel).shape
    depth, height, width, _ = inputs.shape[1:]
    options = {"strides": triple(head.strides)[1:], "padding": head.padding}
    options |= {"dilation_rate": triple(head.dilation_rate)[1:], **_PLAIN}
    make = functools.partial(
        keras.layers.Conv2DTranspose,
        taps * filters,
        window,
        kernel_initializer="zeros",
        name="transposed",
        **options,
    )
    layer = kernels.layer(
        kernel,
        ("transposed volume", str(options)),
        make,
        (None, height, width, channels),
        lambda value: np.moveaxis(value, 0, 2).reshape(*window, taps * filters, channels),
    )
    y = layer(ops.reshape(inputs, (-1, height, width, channels)))
    height, width = y.shape[1:3]
    y = ops.transpose(ops.reshape(y, (-1, height * width, taps, filters)), (0, 2, 1, 3))
    return ops.reshape(y, (-1, depth * taps, height, width, filters))


_WRITERS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "DepthwiseConv": _depthwise,
    "SeparableConv": _separable,
}
_WRITERS_FOR_VOLUMES: dict[str, Callable[..., Any]] = {
    "Conv": _volume,
    "ConvTranspose": _transposed_volume,
}
