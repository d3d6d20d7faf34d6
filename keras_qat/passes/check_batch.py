"""Checks that each output of a model has one row for each sample."""

from __future__ import annotations

import math
from fractions import Fraction

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph
from keras_qat.graph.graph import Shape
from keras_qat.passes.canonical.reshapes import RESHAPE


def check_batch(graph: Graph) -> None:
    """Raises if parts of a sample are still merged into the batch of an output.

    Args:
        graph: A graph of Keras operations, after all rewrites.

    Raises:
        UnsupportedLayerError: With the layer that makes the output.
    """
    rows: dict[str, Fraction] = {}
    for name, node in graph.nodes.items():
        rows[name] = max((rows[edge.node] for edge in node.inputs), default=Fraction(1))
        if not node.is_input and RESHAPE(node.head):
            before, after = graph.shape(node.inputs[0]), node.shapes[0]
            rows[name] *= Fraction(_values(before), _values(after))
    for edge in graph.output_edges:
        count, is_known = rows[edge.node], None not in graph.shape(edge)[1:]
        if count != 1 and count.denominator == 1 and is_known:
            raise _merged(graph, edge, count.numerator)


def _values(shape: Shape) -> int:
    """Returns the number of values of a row, without the sizes that are not known."""
    return math.prod(size for size in shape[1:] if size) or 1


def _merged(graph: Graph, edge: Edge, rows: int) -> UnsupportedLayerError:
    sizes = ", ".join(map(str, graph.shape(edge)[1:]))
    return UnsupportedLayerError(
        "An output of the model has another batch than its inputs, because a reshape merges axes "
        "into the batch.",
        layer=edge.node,
        received=f"an output of shape {graph.shape(edge)}, with {rows} rows for each sample",
        expected="one row for each sample",
        fix=f"Split the batch again: `keras.ops.reshape(y, (-1, {rows}, {sizes}))`.",
    )
