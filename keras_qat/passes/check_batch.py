"""Checks that each output of a model has one row for each sample."""

from __future__ import annotations

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph
from keras_qat.passes.rows import Rows


def check_batch(graph: Graph) -> None:
    """Raises if parts of a sample are still merged into the batch of an output.

    Args:
        graph: A graph of Keras operations, after all rewrites.

    Raises:
        UnsupportedLayerError: With the layer that makes the output.
    """
    rows = Rows()
    for node in graph.nodes.values():
        rows.add(node)
    for edge in graph.output_edges:
        if rows.of(edge) != 1:
            raise _merged(graph, edge, rows.of(edge))


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
