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
from keras_qat.layers.elementwise.constant_operand import ConstantOperand
from keras_qat.passes.rewriting import rewrite_nodes

_QUOTIENT = operation_named("Divide", "TrueDivide")
_POWER = operation_named("Power")
# Operations that round down, with the names of their functions.
_ROUNDED = operation_named("FloorDivide", "Mod")
_FUNCTIONS = {"FloorDivide": "floor_divide", "Mod": "mod"}
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
    `ops.power` of a tensor and a number; `ops.floor_divide` and `ops.mod` of real values by a
    number.
    Builds: a reciprocal, which is a lookup, and a product; an operation such as `ops.square`, or
    a `ConstantOperand`; for `2 ** x` an exponential.
    Why: LiteRT has no division in int8. The reciprocal is rounded to 8 bits, so `b` must stay away
    from 0. The quotient is as accurate as a `1 / b` with an error of half a step of its range,
    which ends at the reciprocal of one step of `b`.

    Args:
        graph: The graph.

    Returns:
        A graph without powers, and without quotients except by one number.

    Raises:
        UnsupportedLayerError: If a weight that trains is divided, or is a base or an exponent.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        found = [write for matches, write in _REWRITES if matches(node.head)]
        operands = [*node.arguments[0], *node.arguments[1].values()]
        if not found or graph.is_plain(node.inputs[0]):
            return None
        [rewrite] = found
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
        return lambda x, _: named(x) if named else _with_constant("power", x, number)
    return (lambda _, y: ops.exp(ops.multiply(y, math.log(number)))) if number > 0 else None


def _rounded(node: Node, a: Any, b: Any) -> Callable[..., Any] | None:
    """Writes a quotient that is rounded down, or its remainder, if the divisor is a number."""
    if isinstance(b, Edge) or _constant(node, b).size != 1:
        raise UnsupportedLayerError(
            "Quotients that are rounded down have an integer form for one number only.",
            layer=node.name,
            received="a divisor that is a tensor or an array",
            expected="a number",
            fix="Divide by a number, or use `ops.floor(a / b)`, which rounds 1 / b to 8 bits.",
        )
    number, name = float(_constant(node, b).item()), _FUNCTIONS[type(node.head).__name__]
    return lambda x, _: _with_constant(name, x, number)


def _with_constant(function: str, x: Any, number: float) -> Any:
    return ConstantOperand(function, number, name=function, dtype="float32")(x)


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


_REWRITES = ((_POWER, _power), (_QUOTIENT, _quotient), (_ROUNDED, _rounded))
