"""Writes quotients as products, and powers as functions of one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, operation_named
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.layers.elementwise.constant_power import ConstantPower
from keras_qat.passes.rewriting import rewrite_nodes

_QUOTIENT = operation_named("Divide", "TrueDivide")
_POWER = operation_named("Power")
# Powers that have their own operations.
_NAMED: dict[float, Callable[[Any], Any]] = {
    -1.0: ops.reciprocal,
    -0.5: ops.rsqrt,
    0.5: ops.sqrt,
    2.0: ops.square,
}


def write_quotients(graph: Graph) -> Graph:
    """Writes `a / b` as `a * (1 / b)`, and `x ** 3` as a function of one tensor.

    Matches: `ops.divide` by a tensor, of a tensor, an array or a number, and by an array;
    `ops.power` of a tensor and a number.
    Builds: a reciprocal, which is a lookup, and a product; an operation such as `ops.square`, or
    a `ConstantPower`; for `2 ** x` an exponential.
    Why: LiteRT has no division in int8. The reciprocal is rounded to 8 bits, so `b` must stay away
    from 0. The quotient is as accurate as a `1 / b` with an error of half a step of its range.

    Args:
        graph: The graph.

    Returns:
        A graph without powers, and without quotients except by one number.

    Raises:
        UnsupportedLayerError: If a weight that trains is divided, or is a base or an exponent.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if not _QUOTIENT(node.head) and not _POWER(node.head):
            return None
        operands = [*node.arguments[0], *node.arguments[1].values()]
        rewrite = _power if _POWER(node.head) else _quotient
        return rewrite(node, *operands) if len(operands) == 2 else None

    return rewrite_nodes(graph, write)


def _quotient(node: Node, a: Any, b: Any) -> Callable[..., Any] | None:
    """Writes a quotient as a product with a reciprocal."""
    if isinstance(a, Edge) and isinstance(b, Edge):
        return lambda x, y: ops.multiply(x, ops.reciprocal(y))
    if isinstance(a, Edge):
        if getattr(b, "trainable", False) or value_of(b).size == 1:
            return None
        return lambda x, _: ops.multiply(x, (1.0 / value_of(b)).astype("float32"))
    numerator = _constant(node, a)
    if numerator.size == 1 and numerator.item() == 1.0:
        return lambda _, y: ops.reciprocal(y)
    return lambda _, y: ops.multiply(ops.reciprocal(y), numerator.astype("float32"))


def _power(node: Node, a: Any, b: Any) -> Callable[..., Any] | None:
    """Writes a power with a constant base or exponent."""
    if isinstance(a, Edge) and isinstance(b, Edge):
        return None
    value = _constant(node, b if isinstance(a, Edge) else a)
    if value.size != 1:
        return None
    number = float(value.item())
    if isinstance(a, Edge):
        named = _NAMED.get(number)
        return lambda x, _: (named or ConstantPower(number, name="power", dtype="float32"))(x)
    return (lambda _, y: ops.exp(ops.multiply(y, math.log(number)))) if number > 0 else None


def _constant(node: Node, leaf: Any) -> np.ndarray:
    if getattr(leaf, "trainable", False):
        raise UnsupportedLayerError(
            "A weight that trains cannot be divided, nor be a base or an exponent.",
            layer=node.name,
            received=f"the weight '{getattr(leaf, 'name', '')}' in a {type(node.head).__name__}",
            expected="a tensor, or a constant",
            fix="Multiply with the weight, or set its `trainable` to False.",
        )
    return value_of(leaf)
