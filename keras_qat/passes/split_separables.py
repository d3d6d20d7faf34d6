"""Writes a separable convolution as the two convolutions that it consists of."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import Shape
from keras_qat.layers.core.drop_in import assign_copy
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

# The two parts that a separable convolution consists of.
_PARTS: dict[type, tuple[Any, Any]] = {
    keras.layers.SeparableConv1D: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    keras.layers.SeparableConv2D: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


def split_separables(graph: Graph) -> Graph:
    """Writes `SeparableConv2D` as a `DepthwiseConv2D` and a `Conv2D` with a 1x1 kernel.

    Matches: `SeparableConv1D` and `SeparableConv2D`.
    Builds: a depthwise convolution without a bias, and under the old name a convolution with the
    bias and the activation; both have copies of the weights. A shared layer becomes two shared
    layers.
    Why: LiteRT needs two operators for it, and the tensor between them has its own range.

    Args:
        graph: The graph.

    Returns:
        A graph without separable convolutions.
    """
    made: dict[int, tuple[Any, Any]] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not is_separable(node):
            return None
        shape = rewriting.shape(node.inputs[0])
        if id(node.head) not in made:
            made[id(node.head)] = _split(node.head, shape)
        depthwise, pointwise = made[id(node.head)]
        name = rewriting.free_name(f"{node.name}_depthwise")
        between = tuple(depthwise.compute_output_shape(shape))
        first = Node.call(depthwise, name, node.inputs[0], between, node.dtypes[0])
        last = Node.call(pointwise, node.name, Edge(name), node.shapes[0], node.dtypes[0])
        return Replacement([first, last])

    return replace_nodes(graph, write)


def is_separable(node: Node) -> bool:
    """Returns whether a node is a separable convolution."""
    return type(node.head) in _PARTS


def _split(layer: Any, shape: Shape) -> tuple[Any, Any]:
    """Returns the two parts of a layer, built, with its weights."""
    depthwise_class, pointwise_class = _PARTS[type(layer)]
    common = {"data_format": layer.data_format, "trainable": layer.trainable, "dtype": "float32"}
    depthwise = depthwise_class(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_initializer=layer.depthwise_initializer,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=f"{layer.name}_depthwise",
        **common,
    )
    pointwise = pointwise_class(
        layer.filters,
        1,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_initializer=layer.pointwise_initializer,
        bias_initializer=layer.bias_initializer,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        activity_regularizer=layer.activity_regularizer,
        name=layer.name,
        **common,
    )
    depthwise.build(shape)
    pointwise.build(depthwise.compute_output_shape(shape))
    assign_copy(depthwise.kernel, layer.depthwise_kernel)
    assign_copy(pointwise.kernel, layer.pointwise_kernel)
    if layer.use_bias:
        assign_copy(pointwise.bias, layer.bias)
    return depthwise, pointwise
