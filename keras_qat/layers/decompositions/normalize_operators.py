"""Normalization in LiteRT: exact sums, a table for each group, and three int8 operators.

Operators on whole tensors are int8 operators that XNNPACK takes, and two BATCH_MATMUL that sum the
integers and their squares. All other operators run once for each group.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.normalize import Normalization, Scales
from keras_qat.layers.decompositions.integer_operators import IntegerOperators
from keras_qat.litert import Quantization
from keras_qat.quantizers import Grid

_INT8 = 128  # zero point of uint8 minus that of int8


class NormalizingOperators:
    """Adds the operators of a `QNormalize` to a LiteRT model.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        rule: The normalization to compute.
        scales: Scales of the tensors inside the layer.
    """

    def __init__(self, builder: Any, rule: Normalization, scales: Scales):
        self._builder, self._rule, self._scales = builder, rule, scales
        self._add = IntegerOperators(builder)

    def group_last(self, x: Any, view: Sequence[int | None], axes: Sequence[int]) -> Any:
        """Adds a RESHAPE and a TRANSPOSE, if necessary, after which each group is a row.

        Args:
            x: Tensor of the type of the layer.
            view: The shape in which the tensor is viewed.
            axes: The axes of the view that a group extends over.

        Returns:
            Tensor `(groups, parts, values)`.
        """
        order = _order(view, axes)
        if order != sorted(order):
            x = self._transpose(self._reshape(x, view, "view"), order, "moved")
        return self._reshape(x, (None, self._rule.parts, self._rule.part_count), "rows")

    def group_back(self, y: Any, view: Sequence[int | None], axes: Sequence[int], shape) -> Any:
        """Adds operators that undo `group_last`. The last operator makes the node's output."""
        order = _order(view, axes)
        if order != sorted(order):
            y = self._reshape(y, [view[axis] for axis in order], "unmoved")
            part = "unviewed" if tuple(view) != tuple(shape) else None
            y = self._transpose(y, np.argsort(order).tolist(), part)
        return y if tuple(y.shape) == tuple(shape) else self._builder.reshape(y, shape)

    def normalize(self, x: Any, table: Any, middle: Grid, part: str | None) -> Any:
        """Adds the sums, the lookup, and the operators on all values.

        Args:
            x: Tensor of the type of the layer, `(groups, parts, values)`.
            table: Integers from 0 to 255 that are factors of values.
            middle: Parameters of the differences from the mean.
            part: Name of the output; None for the node's own.
        """
        narrow, grid = self._to_int8(x, "int8"), self._builder.output_quantization
        total, squares = self._sums(narrow)
        if not self._rule.centered:
            zero = int(narrow.quantization.zero_point[0])
            factor = self._from_int8(self._factor(self._around(total, squares, zero), table))
            return self._big("MUL", x, factor, part, grid)
        mean, rest, squares = self._subtract_mean(total, squares, narrow.quantization)
        factor = self._factor(squares, table)
        rest = self._add.quantize(rest, _grid(self._scales.rest), "rest")
        correction = _grid(self._scales.correction)
        correction = self._big("MUL", rest, factor, "correction", correction, "int8")
        x = self._big("SUB", x, self._from_int8(mean), "centered", _grid(*middle))
        y = self._big("MUL", x, self._from_int8(factor), "scaled", grid)
        return self._big("SUB", y, self._from_int8(correction), part, grid)

    def _sums(self, x: Any) -> tuple[Any, Any]:
        """Returns the sums of each part's integers and their squares, `(groups, parts, 1)`."""
        rule, zero = self._rule, int(x.quantization.zero_point[0])
        ones = np.ones((1, 1, rule.part_count), "int8")
        ones = self._builder.constant("ones", ones, _grid(1.0))
        parts = self._reshape(x, (None, 1, rule.part_count), "parts")
        mean = _grid(self._scales.mean, zero * rule.count)
        total = self._add.multiply_rows(parts, ones, mean, "sums")
        squares = self._add.multiply_rows(parts, parts, _grid(1.0), "squares")
        shape = None, rule.parts, 1
        total = self._add.reshape(total, shape, "sums_of_parts")
        return total, self._add.reshape(squares, shape, "squares_of_parts")

    def _around(self, total: Any, squares: Any, zero: int) -> Any:
        """Returns the sums of the squares of values, from sums of integers with a zero point."""
        add, count = self._add, self._rule.part_count
        twice = add.combine("MUL", total, 2 * zero, "sums_twice")
        squares = add.combine("SUB", squares, twice, "squares_less")
        return add.combine("ADD", squares, count * zero**2, "squares_around", _grid(1.0))

    def _subtract_mean(self, total: Any, squares: Any, grid: Quantization) -> tuple[Any, Any, Any]:
        """Returns the rounded mean, its rounding error, and the sums of squares around the mean.

        With `m` the rounded mean of `n` values, `sum((x - m)**2) = sum(x**2) - m * (2 * sum(x) -
        n * m)`.
        """
        add, rule = self._add, self._rule
        of_rest = _grid(self._scales.mean)
        of_mean = _grid(self._scales.mean, int(grid.zero_point[0]) * rule.count)
        whole = total
        if rule.parts > 1:
            whole = add.reduce("SUM", total, (1,), "sum", of_mean)
        mean = add.quantize(whole, grid, "mean")
        wide = add.widen(mean, "mean_wide")
        multiple = add.combine("MUL", wide, rule.part_count, "mean_multiple")
        left = add.combine("SUB", total, multiple, "left", of_rest)
        both = add.combine("ADD", total, left, "sums_and_left")
        both = add.combine("MUL", both, wide, "product")
        squares = add.combine("SUB", squares, both, "squares_around", _grid(1.0))
        rest = left if rule.parts == 1 else add.reduce("SUM", left, (1,), "left_sum", of_rest)
        return mean, rest, squares

    def _factor(self, squares: Any, table: Any) -> Any:
        """Looks up the reciprocal deviation of each group, int8."""
        add, rule = self._add, self._rule
        if rule.parts > 1:
            squares = add.combine("ADD", squares, rule.parts // 2, "squares_half")
            squares = add.combine("FLOOR_DIV", squares, rule.parts, "squares_part")
            squares = add.reduce("SUM", squares, (1,), "squares_sum", _grid(1.0))
        levels = []
        for number, unit in enumerate(rule.units):
            level = add.quantize(squares, _grid(unit, -_INT8), f"level{number}")
            levels.append(add.widen(level, f"level{number}_wide"))
        index = functools.reduce(lambda a, b: add.combine("ADD", a, b, f"{_part(b)}_sum"), levels)
        index = add.combine("ADD", index, _INT8 * len(levels), "index")
        entries = ops.convert_to_numpy(table) - _INT8
        constant = self._builder.constant("table", entries.astype("int8"))
        return self._builder.operator(
            "GATHER",
            (constant, index),
            part="reciprocal",
            shape=index.shape,
            quantization=_grid(self._scales.reciprocal, -_INT8),
            dtype="int8",
            options={"axis": 0},
        )

    def _big(self, code, a, b, part, quantization, dtype=None) -> Any:
        """Adds a quantized operator of a tensor and one integer for each group."""
        return self._builder.operator(
            code,
            (a, b),
            part=part,
            shape=a.shape,
            quantization=quantization,
            dtype=dtype,
        )

    def _to_int8(self, x: Any, part: str) -> Any:
        if x.dtype == "int8":
            return x
        return self._add.quantize(x, _moved(x.quantization, -_INT8), part)

    def _from_int8(self, x: Any) -> Any:
        dtype = self._builder.dtype
        if dtype == "int8":
            return x
        return self._add.quantize(x, _moved(x.quantization, _INT8), f"{_part(x)}_{dtype}", dtype)

    def _reshape(self, x: Any, shape: Sequence[int | None], part: str) -> Any:
        same = tuple(x.shape) == tuple(shape)
        return x if same else self._builder.reshape(x, shape, part=part)

    def _transpose(self, x: Any, order: Sequence[int], part: str | None) -> Any:
        role = "transposed" if part is None else f"{part}/order"
        return self._builder.operator(
            "TRANSPOSE",
            (x, self._builder.constant(role, np.array(order, "int32"))),
            part=part,
            shape=[x.shape[axis] for axis in order],
            quantization=x.quantization,
        )


def _order(view: Sequence[Any], axes: Sequence[int]) -> list[int]:
    """Returns the axes of a view, with the axes of a group last."""
    return [axis for axis in range(len(view)) if axis not in axes] + list(axes)


def _grid(scale: Any, zero_point: Any = 0) -> Quantization:
    scale = np.asarray(ops.convert_to_numpy(scale), "float32").reshape(1)
    return Quantization(scale, np.array([int(zero_point)], "int64"))


def _moved(grid: Quantization, offset: int) -> Quantization:
    return Quantization(grid.scale, grid.zero_point + offset)


def _part(x: Any) -> str:
    return x.name.rpartition("/")[2]
