"""Writes products of tensors as matrix products that LiteRT supports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.graph import Graph, Node
from keras_qat.passes.contracting import (
    Contraction,
    arranged,
    contraction_of,
    unfolded,
)
from keras_qat.passes.rewriting import rewrite_nodes


def write_products(graph: Graph) -> Graph:
    """Writes `ops.einsum`, `ops.dot` and others of two tensors as `ops.matmul` of batches.

    Matches: `ops.matmul`, `ops.dot`, `ops.tensordot` and `ops.einsum` of two tensors that have
    the batch as their first axis, and do not sum over it.
    Builds: transposes and reshapes, if any are needed, and an `ops.matmul` of two tensors of one
    rank. The last of these operations has the old name.
    Why: LiteRT has one matrix product, BATCH_MATMUL.

    Args:
        graph: The graph.

    Returns:
        A graph whose products of tensors are batched.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        read = contraction_of(node, graph.shape)
        if read is None or len(node.inputs) != 2:
            return None
        found, _ = read
        if _is_batched(node, found) or not _keeps_batch(found):
            return None
        return lambda *args, **kwargs: _product(found, *args, *kwargs.values())

    return rewrite_nodes(graph, write)


def _is_batched(node: Node, found: Contraction) -> bool:
    """Returns whether a product already is a BATCH_MATMUL."""
    return type(node.head).__name__ == "Matmul" and len(found.a) == len(found.b) > 2


def _keeps_batch(found: Contraction) -> bool:
    """Returns whether the first axis of both operands and the result is the same."""
    return len({axes[:1] for axes in (found.a, found.b, found.out)}) == 1


def _product(found: Contraction, a: Any, b: Any) -> Any:
    """Writes a contraction as a matmul between transpositions and reshapes."""
    sizes = {**dict(zip(found.b, b.shape, strict=True)), **dict(zip(found.a, a.shape, strict=True))}
    free_a, free_b = found.free(found.a), found.free(found.b)
    rows = arranged(a, found.a, found.batch, free_a, found.summed)
    columns = arranged(b, found.b, found.batch, found.summed, free_b)
    axes = found.batch + free_a + free_b
    product = ops.matmul(rows, columns)
    return unfolded(product, axes, [sizes[axis] for axis in axes], found.out)
