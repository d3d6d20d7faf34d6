"""Writes a sum over axes as a mean times the number of its values."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Edge, Graph, Node, operation_named, read_model
from keras_qat.graph.graph import Shape, unique_name

_SUM = operation_named("Sum")


def write_sums_as_means(graph: Graph) -> Graph:
    """Writes `ops.sum(x, axis)` as `ops.mean(x, axis) * n`.

    Matches: `ops.sum` over axes of known size, without the batch.
    Builds: an `ops.mean`, and under the old name an `ops.multiply` by a constant.
    Why: LiteRT's reference kernel computes int8 sums wrongly.

    Args:
        graph: The graph.

    Returns:
        A graph without such sums.
    """
    nodes: list[Node] = []
    taken = set(graph.nodes)
    for node in graph.nodes.values():
        shape = () if node.is_input else graph.shape(node.inputs[0])
        if node.is_input or not _SUM(node.head) or not (count := _count(node, shape)):
            nodes.append(node)
            continue
        name = unique_name(f"{node.name}_mean", taken)
        taken.add(name)
        mean, product = _mean_and_product(node, shape, count)
        source = node.inputs[0]
        nodes.append(
            dataclasses.replace(mean, name=name, inputs=(source,), arguments=((source,), {}))
        )
        product = product.rewired({Edge(mean.name): Edge(name)})
        nodes.append(dataclasses.replace(product, name=node.name))
    return graph.replace(nodes, {})


def _count(node: Node, shape: Shape) -> int:
    """How many values each sum has; 0 if that depends on the batch or is not known."""
    if node.head.axis is None:
        return 0
    axes = {axis % len(shape) for axis in np.atleast_1d(node.head.axis).tolist()}
    sizes = [shape[axis] for axis in axes]
    return 0 if 0 in axes else math.prod(size or 0 for size in sizes)


def _mean_and_product(node: Node, shape: Shape, count: int) -> tuple[Node, Node]:
    x = keras.Input(batch_shape=shape)
    mean = ops.mean(x, axis=node.head.axis, keepdims=node.head.keepdims)
    traced = read_model(keras.Model(x, ops.multiply(mean, float(count))))
    _, first, second = traced.nodes.values()
    return first, second
