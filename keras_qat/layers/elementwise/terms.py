"""Float32 expressions that become LiteRT operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.litert import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """An expression: an operator and its operands.

    Terms support addition, multiplication and so on like numbers. A term that is used more than
    once is computed once.

    Attributes:
        code: Name of the operator.
        operands: Terms, LiteRT tensors, numbers, and int32 arrays.
        options: Fields of the operator's options.
        shape: Shape of the result, by default the shape to which the operands broadcast.
        dtype: Type of the result.
    """

    code: str
    operands: tuple[Any, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shape: Sequence[int | None] | None = None
    dtype: str = "float32"

    def __add__(self, other):
        return combined("ADD", self, other)

    def __radd__(self, other):
        return combined("ADD", other, self)

    def __sub__(self, other):
        return combined("SUB", self, other)

    def __rsub__(self, other):
        return combined("SUB", other, self)

    def __mul__(self, other):
        return combined("MUL", self, other)

    def __rmul__(self, other):
        return combined("MUL", other, self)

    def __truediv__(self, other):
        return combined("DIV", self, other)

    def __rtruediv__(self, other):
        return combined("DIV", other, self)

    def __neg__(self):
        return Term("NEG", (self,))


def combined(code: str, a: Any, b: Any) -> Term:
    """Returns an operator of two operands."""
    return Term(code, (a, b))


def reduced(code: str, x: Any, axes: Sequence[int], shape: Sequence[int | None]) -> Term:
    """Returns a reduction that keeps its axes.

    Args:
        code: Name of the operator, such as `"MEAN"`.
        x: Term or LiteRT tensor.
        axes: The axes to reduce.
        shape: Shape of `x`.
    """
    left = [1 if axis in axes else size for axis, size in enumerate(shape)]
    operands = x, np.array(axes, "int32")
    return Term(code, operands, {"keepDims": True}, left)


def reshaped(x: Any, shape: Sequence[int | None]) -> Term:
    """Returns a RESHAPE. An unknown size stays unknown."""
    sizes = np.array([-1 if size is None else size for size in shape], "int32")
    return Term("RESHAPE", (x, sizes), {"newShape": sizes}, shape)


def lower_term(builder: Any, term: Term) -> Any:
    """Adds the operators of a term to a LiteRT model. The last operator has the node's name.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        term: The term, of the shape of the node's output.

    Returns:
        The LiteRT tensor of the output.
    """
    return _Lowering(builder).lower(term, is_last=True)


class _Lowering:
    def __init__(self, builder: Any):
        self._builder = builder
        self._made: dict[Any, Tensor] = {}

    def lower(self, term: Any, *, is_last: bool = False) -> Tensor:
        if isinstance(term, Tensor):
            return term
        if not isinstance(term, Term):
            return self._constant(term)
        if term not in self._made:
            operands = [self.lower(operand) for operand in term.operands]
            shape = term.shape
            if shape is None:
                shape = broadcast_shape(*(x.shape for x in operands if x.shape))
            self._made[term] = self._builder.operator(
                term.code,
                operands,
                part=None if is_last else f"{term.code.lower()}_{len(self._made)}",
                shape=shape,
                dtype=term.dtype,
                options=dict(term.options),
            )
        return self._made[term]

    def _constant(self, value: Any) -> Tensor:
        array = value if isinstance(value, np.ndarray) else np.array(value, "float32")
        key = array.dtype, array.shape, array.tobytes()
        if key not in self._made:
            self._made[key] = self._builder.constant(f"operand_{len(self._made)}", array)
        return self._made[key]
