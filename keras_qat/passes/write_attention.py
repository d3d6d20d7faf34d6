"""Writes scaled dot-product attention as the products and the softmax that it consists of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node, operation_named
from keras_qat.passes.rewriting import rewrite_nodes

_ATTENTION = operation_named("DotProductAttention")


def write_attention(graph: Graph) -> Graph:
    """Writes `ops.dot_product_attention` as a product, a softmax and a product.

    Matches: `ops.dot_product_attention` without a mask, as in `MultiHeadAttention`.
    Builds: `softmax(query * scale @ key) @ value`, and an addition of the bias, if there is one.
    `write_products` then puts the axes in order.
    Why: each of these is an operator of LiteRT, and the product has its own range.

    Args:
        graph: The graph.

    Returns:
        A graph without such attention.

    Raises:
        UnsupportedLayerError: If there is a mask, or the logits are capped.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if not _ATTENTION(node.head):
            return None
        if node.head.is_causal or node.head.attn_logits_soft_cap:
            raise _masked(node, "is_causal" if node.head.is_causal else "attn_logits_soft_cap")
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
    if mask is not None:
        raise _masked(node, "a mask")
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = ops.einsum("btnh,bsnh->bnts", ops.multiply(query, scale), key)
    if bias is not None:
        scores = ops.add(scores, bias)
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores, axis=-1), value)


def _masked(node: Node, what: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        "An int8 score cannot be low enough to be ignored beside others, so attention with a mask "
        "has no integer form here.",
        layer=node.name,
        received=what,
        expected="attention without a mask",
        fix="Leave the mask out, and give the model sequences of one length.",
    )
