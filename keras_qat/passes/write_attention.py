"""Writes scaled dot-product attention as the products and the softmax that it consists of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Graph, Node, Parameter, operation_named
from keras_qat.layers.decompositions.composed import mask_scores
from keras_qat.passes.rewriting import rewrite_nodes

_ATTENTION = operation_named("DotProductAttention")


def write_attention(graph: Graph) -> Graph:
    """Writes `ops.dot_product_attention` as a product, a softmax and a product.

    Matches: `ops.dot_product_attention`, as in `MultiHeadAttention`.
    Builds: `softmax(query * scale @ key) @ value`, and an addition of the bias, if there is one.
    A causal or constant mask becomes a minimum with a constant, which is far below the scores that
    are masked. `write_products` then puts the axes in order.
    Why: each of these is an operator of LiteRT, and the product has its own range.

    Args:
        graph: The graph.

    Returns:
        A graph without such attention.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if not _ATTENTION(node.head):
            return None
        return lambda *args, **kwargs: _attention(node, *args, **kwargs)

    return rewrite_nodes(graph, write)


def _attention(
    node: Node,
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Any:
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = ops.einsum("btnh,bsnh->bnts", ops.multiply(query, scale), key)
    if bias is not None:
        scores = ops.add(scores, bias)
    scores = _masked(node, scores, mask)
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores, axis=-1), value)


def _masked(node: Node, scores: Any, mask: Any) -> Any:
    """Returns scores of which the masked ones are far below all others."""
    if isinstance(mask, Parameter):
        mask = mask.value
    if node.head.is_causal:
        causal = np.tri(*scores.shape[-2:], dtype=bool)
        mask = causal if mask is None else ops.logical_and(mask, causal)
    return scores if mask is None else mask_scores(scores, mask)
