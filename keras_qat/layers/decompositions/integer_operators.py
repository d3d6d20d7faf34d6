"""Plain int32 arithmetic in LiteRT: operators without quantization, exact in every kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.arithmetic.segments import Segments
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.litert import Quantization


class IntegerOperators:
    """Adds int32 operators to a LiteRT model, each as a part of one layer.

    The kernels do not scale. They wrap around as C's int32 does, and the reference kernels and the
    kernels for phones and PCs agree.

    Args:
        builder: A `keras_qat.lowering.Builder`.
    """

    def __init__(self, builder: Any):
        self._builder = builder

    def widen(self, x: Any, part: str) -> Any:
        """Casts an 8-bit tensor to int32. The integers do not change."""
        options = {"inDataType": x.dtype.upper(), "outDataType": "INT32"}
        return self._add("CAST", (x,), part, x.shape, options)

    def narrow(self, x: Any, part: str | None) -> Any:
        """Casts an int32 tensor to 8 bits, with the parameters of the layer's output."""
        dtype = self._builder.dtype
        return self._builder.operator(
            "CAST",
            (x,),
            part=part,
            shape=x.shape,
            options={"inDataType": "INT32", "outDataType": dtype.upper()},
        )

    def quantize(self, x: Any, quantization: Quantization, part: str, dtype: str = "int8") -> Any:
        """Adds a QUANTIZE: converts integers with a scale to another scale or type."""
        return self._builder.operator(
            "QUANTIZE",
            (x,),
            part=part,
            shape=x.shape,
            quantization=quantization,
            dtype=dtype,
        )

    def multiply_rows(self, a: Any, b: Any, quantization: Quantization, part: str) -> Any:
        """Adds a BATCH_MATMUL: the sums of products of two int8 tensors, row by row.

        With an int32 output the kernels multiply the integers directly, ignore zero points, and do
        not scale.

        Args:
            a: int8 tensor `(rows, 1, size)`.
            b: int8 tensor `(rows or 1, 1, size)`.
            quantization: Quantization parameters of the sums.
            part: Name of the output, int32 `(rows, 1, 1)`.
        """
        options = {"adjX": False, "adjY": True}
        shape, given = (*a.shape[:-1], 1), {"quantization": quantization}
        return self._add("BATCH_MATMUL", (a, b), part, shape, options, **given)

    def combine(
        self, code: str, a: Any, b: Any, part: str, quantization: Quantization | None = None
    ) -> Any:
        """Adds an operator of two operands of one rank, the second a tensor or an integer.

        Args:
            code: ADD, SUB, MUL, FLOOR_DIV, MINIMUM or MAXIMUM.
            a: int32 tensor.
            b: int32 tensor, or integers that become a constant.
            part: Name of the output within the layer.
            quantization: Quantization parameters of the integers, for a QUANTIZE of them.
        """
        shape = a.shape
        if isinstance(b, int | tuple):
            values = np.array(b, "int32")
            shape = (*shape[:-1], shape[-1] if isinstance(b, int) else len(values))
            b = self._builder.constant(f"{part}/operand", values)
        else:
            shape = broadcast_shape(shape, b.shape)
        return self._add(code, (a, b), part, shape, quantization=quantization)

    def reduce(
        self,
        code: str,
        x: Any,
        axes: Sequence[int],
        part: str,
        quantization: Quantization | None = None,
    ) -> Any:
        """Adds a SUM or REDUCE_MAX; the axes stay, with a size of 1."""
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        constant = self._builder.constant(f"{part}/axes", np.array(axes, "int32"))
        given = {"options": {"keepDims": True}, "quantization": quantization}
        return self._add(code, (x, constant), part, shape, **given)

    def index(self, x: Any, segments: Segments, part: str) -> Any:
        """Adds a division, a MINIMUM and a SUM: the index of a column of integers.

        Args:
            x: int32 tensor `(rows, 1)`.
            segments: The segments.
            part: Name of the tensor whose index is computed.
        """
        steps = self.combine("FLOOR_DIV", x, segments.steps, f"{part}_steps")
        capped = self.combine("MINIMUM", steps, segments.caps, f"{part}_capped")
        return self.reduce("SUM", capped, (1,), f"{part}_index")

    def look_up(self, table: np.ndarray, index: Any, part: str) -> Any:
        """Adds a GATHER from an int32 table."""
        constant = self._builder.constant(f"{part}/table", table.astype("int32"))
        options = {"axis": 0}
        return self._add("GATHER", (constant, index), part, index.shape, options)

    def reshape(self, x: Any, shape: Sequence[int | None], part: str) -> Any:
        """Adds a RESHAPE, unless the tensor has that shape."""
        if tuple(x.shape) == tuple(shape):
            return x
        sizes = np.array([-1 if size is None else size for size in shape], "int32")
        constant = self._builder.constant(f"{part}/shape", sizes)
        options = {"newShape": sizes}
        return self._add("RESHAPE", (x, constant), part, shape, options)

    def _add(self, code, inputs, part, shape, options=None, **given):
        return self._builder.operator(
            code,
            inputs,
            part=part,
            shape=shape,
            dtype="int32",
            options=options,
            **given,
        )
