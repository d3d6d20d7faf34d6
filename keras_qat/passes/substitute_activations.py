"""Substitutes cheap activations for activations that LiteRT has to look up in a table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.layers import QLookup, QuantizedLayer
from keras_qat.layers.core.registry import find_rule
from keras_qat.layers.elementwise.functions import Function, function_of
from keras_qat.passes.rewriting import rewrite_nodes
from keras_qat.scheme import Scheme


def _bounded(x: Any, alpha: float = 1.0) -> Any:
    return ops.maximum(x, -alpha)


def _scaled_and_bounded(x: Any) -> Any:
    # The limits of selu: its slope for positive values, and its smallest value.
    return ops.maximum(1.05070099 * x, -1.75809934)


def _steep_sigmoid(x: Any) -> Any:
    # Equals tanh(x), except for rounding.
    return 2.0 * ops.sigmoid(2.0 * x) - 1.0


def _clipped(x: Any) -> Any:
    return ops.relu6(x + 3.0) * (1.0 / 6.0)


# Each stand-in consists of operators that all targets have.
STAND_INS: dict[str, Callable[..., Any]] = {
    "celu": _bounded,
    "elu": _bounded,
    "gelu": ops.hard_silu,
    "hard_tanh": _steep_sigmoid,
    "log_sigmoid": lambda x: -1.0 * ops.relu(-1.0 * x),
    "mish": ops.hard_silu,
    "selu": _scaled_and_bounded,
    "softplus": ops.relu,
    "softsign": _steep_sigmoid,
    "sparse_plus": ops.relu,
    "sparse_sigmoid": _clipped,
    "squareplus": ops.relu,
}


def substitute_activations(graph: Graph) -> Graph:
    """Substitutes cheap activations of about the same shape for lookups.

    Matches: an activation that is a lookup, or whose operator few targets have: softplus, elu,
    selu, celu, gelu, mish, softsign, squareplus and others.
    Builds: relu for softplus; `maximum(x, -alpha)` for elu and celu, and the same with the limits
    of selu; hard-swish for gelu and mish; `2 * sigmoid(2 * x) - 1` for softsign;
    `relu6(x + 3) / 6` for sigmoids. All targets have these operators.
    Why: a lookup is a GATHER, which some accelerators lack. The function changes: train
    after it.

    Args:
        graph: The graph.

    Returns:
        A graph with other activations; the graph itself if no activation had to be replaced.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        function = function_of(node.head)
        if function is None or function.name not in STAND_INS:
            return None
        options = {name: value for name, value in function.options if name == "alpha"}
        return functools.partial(STAND_INS[function.name], **options)

    return rewrite_nodes(graph, write)


def check_no_lookups(graph: Graph, scheme: Scheme | None) -> None:
    """Raises if a function would be looked up in a table.

    Args:
        graph: A graph of Keras operations with schemes, after all rewrites.
        scheme: The scheme of the model; None for a clone. Float layers have no lookups.

    Raises:
        UnsupportedLayerError: With the first layer, and all others.
    """
    found: dict[str, Function] = {}
    for name, node in graph.nodes.items():
        layer = None if node.is_input else _layer_of_function(node)
        if isinstance(layer, QLookup) and (scheme is None or node.scheme is not None):
            found[name] = layer.function
    if found:
        listed = [f"'{name}' ({function.name})" for name, function in found.items()]
        raise UnsupportedLayerError(
            "LiteRT has no integer operator for this function, only a lookup (CAST, ADD, GATHER).",
            layer=next(iter(found)),
            received=", ".join(listed[:8]) + (" and others" if len(listed) > 8 else ""),
            expected="functions with an operator of their own, as `activations` is "
            '"substitute" or "error"',
            fix=_fix(found),
        )


def _layer_of_function(node: Node) -> QuantizedLayer | None:
    """Returns the layer that an element-wise function becomes, or None for other operations."""
    entry = find_rule(node.operations)
    is_function = len(node.operations) == 1 and function_of(node.head) is not None
    return entry.layer.from_match(node, node.scheme) if entry and is_function else None


def _fix(found: Mapping[str, Function]) -> str:
    if any(function.name in STAND_INS for function in found.values()):
        return (
            'Pass activations="substitute" for cheap stand-ins (train after it), or '
            'activations="exact" for lookups.'
        )
    return 'Use another function, or pass activations="exact" for lookups.'
