"""Sums of products over shared axes: one description of `matmul`, `dot`, `tensordot`, `einsum`."""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Edge, Node
from keras_qat.graph.graph import Shape
from keras_qat.layers.elementwise.binary import value_of

_LETTERS = string.ascii_letters


@dataclasses.dataclass(frozen=True)
class Contraction:
    """A product of two tensors, as in `einsum`: one letter for each axis.

    Attributes:
        a: The axes of the first operand.
        b: The axes of the second operand.
        out: The axes of the result. Each is an axis of one operand or of both. All other axes are
            summed over.

    Example:
    >>> Contraction("bij", "jk", "bik").summed
    'j'
    """

    a: str
    b: str
    out: str

    @property
    def summed(self) -> str:
        """The axes that are summed over."""
        return "".join(axis for axis in self.a if axis not in self.out)

    @property
    def batch(self) -> str:
        """The axes that both operands and the result have."""
        return "".join(axis for axis in self.a if axis in self.out and axis in self.b)

    @property
    def swapped(self) -> Contraction:
        """The same product with its operands the other way around."""
        return Contraction(self.b, self.a, self.out)

    def free(self, operand: str) -> str:
        """The axes of the result that only this operand has, in the result's order."""
        return "".join(axis for axis in self.out if axis in operand and axis not in self.batch)

    @property
    def is_product(self) -> bool:
        """Whether this is a product of matrices, once its axes are in order.

        No axis may occur twice in an operand, or be summed over in one operand alone.
        """
        pairs = (self.a, self.b), (self.b, self.a)
        distinct = all(len(set(axes)) == len(axes) for axes in (self.a, self.b, self.out))
        return distinct and all(
            axis in other or axis in self.out for axes, other in pairs for axis in axes
        )


def contraction_of(
    node: Node, shape_of: Callable[[Edge], Shape]
) -> tuple[Contraction, list[Any]] | None:
    """Reads the axes of the operands and of the result of an operation.

    Args:
        node: A call of an operation.
        shape_of: Gives the shape of each tensor.

    Returns:
        The `Contraction` and the two operands, or None if the operation is not a product of
        matrices.
    """
    read = _READERS.get(type(node.head).__name__)
    if read is None or not type(node.head).__module__.startswith("keras.src.ops"):
        return None
    operands = [*node.arguments[0], *node.arguments[1].values()]
    if len(operands) != 2:
        return None
    shapes = (shape_of(x) if isinstance(x, Edge) else value_of(x).shape for x in operands)
    found = read(node.head, *(len(shape) for shape in shapes))
    return (found, operands) if found is not None and found.is_product else None


def _matmul(head: Any, a: int, b: int) -> Contraction | None:
    del head
    if min(a, b) == 0:
        return None
    lead = _LETTERS[3 : 1 + max(a, b)]
    # A single matrix multiplies all others. A vector does too, and its axis is then dropped.
    left, right = ("", "j") if a == 1 else (lead if a > 2 else "", "ij")
    other, last = ("", "j") if b == 1 else (lead if b > 2 else "", "jk")
    if min(a, b) > 2 and a != b:
        return None
    return Contraction(left + right, other + last, lead + right[:-1] + last[1:])


def _dot(head: Any, a: int, b: int) -> Contraction | None:
    del head
    if min(a, b) == 0:
        return None
    first, rest = _LETTERS[1:a], _LETTERS[a : a + b - 1]
    second = "a" if b == 1 else rest[:-1] + "a" + rest[-1]
    return Contraction(first + "a", second, first + rest)


def _tensordot(head: Any, a: int, b: int) -> Contraction:
    axes = head.axes
    if isinstance(axes, int):
        axes = list(range(a - axes, a)), list(range(axes))
    first, second = list(_LETTERS[:a]), list(_LETTERS[a : a + b])
    for mine, theirs in zip(np.atleast_1d(axes[0]), np.atleast_1d(axes[1]), strict=True):
        second[theirs] = first[mine]
    summed = set(first) & set(second)
    out = [axis for axis in (*first, *second) if axis not in summed]
    return Contraction("".join(first), "".join(second), "".join(out))


def _einsum(head: Any, *ranks: int) -> Contraction | None:
    """Reads an einsum of two tensors, with the ellipsis written as letters."""
    inputs, arrow, out = head.subscripts.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != 2:
        return None
    if not arrow:
        once = {axis for axis in inputs if inputs.count(axis) == 1 and axis.isalpha()}
        out = ("..." if "..." in inputs else "") + "".join(sorted(once))
    unused = "".join(axis for axis in _LETTERS if axis not in head.subscripts)
    sizes = [rank - len(axes.replace(".", "")) for rank, axes in zip(ranks, operands, strict=True)]
    most = max((n for n, axes in zip(sizes, operands, strict=True) if "." in axes), default=0)
    spread = [
        axes.replace("...", unused[most - n : most] if n else "")
        for n, axes in zip((*sizes, most), (*operands, out), strict=True)
    ]
    return Contraction(*spread)


_READERS: dict[str, Callable[..., Contraction | None]] = {
    "Dot": _dot,
    "Einsum": _einsum,
    "Matmul": _matmul,
    "Tensordot": _tensordot,
}


def arranged(x: Any, axes: str, *groups: str) -> Any:
    """Permutes the axes of a symbolic tensor, and makes one axis of each group but the first.

    Args:
        x: The tensor; the size of its first axis may be unknown.
        axes: Its axes, one letter each.
        groups: The same letters in another order. Those of the first group stay apart.
    """
    order = [axes.index(axis) for axis in "".join(groups)]
    if order != sorted(order):
        x = ops.transpose(x, order)
    kept = len(groups[0])
    if all(len(group) == 1 for group in groups[1:]):
        return x
    sizes = iter(x.shape[kept:])
    merged = [math.prod(next(sizes) for _ in group) for group in groups[1:]]
    return ops.reshape(x, (-1, *x.shape[1:kept], *merged))


def unfolded(y: Any, axes: str, sizes: Sequence[int | None], out: str) -> Any:
    """Gives the axes of a result their own sizes, and their order.

    Args:
        y: The tensor, with axes that may be merged.
        axes: Its original axes, one letter for each, the batch first.
        sizes: Their sizes.
        out: The letters in the order of the result.
    """
    if tuple(y.shape[1:]) != tuple(sizes[1:]):
        y = ops.reshape(y, (-1, *sizes[1:]))
    return y if axes == out else ops.transpose(y, [axes.index(axis) for axis in out])
