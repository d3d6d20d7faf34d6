"""GREATER, LESS, EQUAL and the other comparisons, and LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic.thresholds import steps_around
from keras_qat.graph import Node, operation_named
from keras_qat.layers.core.booleans import check_booleans
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.layers.elementwise.binary import Binary
from keras_qat.quantizers import Fixed, Grid

# The function and the operator of each operation of `keras.ops`.
_COMPARISONS: dict[str, tuple[Any, str]] = {
    "Equal": (ops.equal, "EQUAL"),
    "Greater": (ops.greater, "GREATER"),
    "GreaterEqual": (ops.greater_equal, "GREATER_EQUAL"),
    "Less": (ops.less, "LESS"),
    "LessEqual": (ops.less_equal, "LESS_EQUAL"),
    "NotEqual": (ops.not_equal, "NOT_EQUAL"),
}
_LOGIC: dict[str, tuple[Any, str]] = {
    "LogicalAnd": (ops.logical_and, "LOGICAL_AND"),
    "LogicalOr": (ops.logical_or, "LOGICAL_OR"),
    "LogicalXor": (ops.logical_xor, "NOT_EQUAL"),
}
# The grid of plain integers, and the integers up to which float32 constants are exact.
_WHOLE = Grid(1.0, 0)
_MOST_WHOLE = 2.0**24


class Decision(Binary):
    """Base class of operators of two operands whose output is booleans.

    Args:
        function: Name of the class of the operation in `keras.ops`.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    plain_dtype = "bool"
    plain_inputs = ("bool",)
    output_specification = None
    functions: dict[str, tuple[Any, str]]

    def __init__(self, *, function: str, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    @classmethod
    def config_of_match(cls, node: Node) -> dict[str, Any]:
        """Returns the configuration for an operation."""
        return {**super().config_of_match(node), "function": type(node.head).__name__}

    def decided(self, inputs: Sequence[Any], constant: Any) -> Any:
        """Applies the function to the tensors and the constant, in their order."""
        return self.functions[self.function][0](*self.in_order(inputs, constant))

    def decide(self, builder, inputs: Sequence[Any], constant: Any) -> Any:
        """Adds the operator."""
        operands = self.in_order(inputs, constant)
        return builder.operator(self.functions[self.function][1], operands, dtype="bool")

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "function": self.function}


@register(operation_named(*_COMPARISONS))
@keras.saving.register_keras_serializable("keras_qat")
class QCompare(Decision):
    """Compares two tensors, or a tensor and a constant, element by element.

    Two tensors have one range. The integers are compared as int32, without a scale: LiteRT's 8-bit
    comparisons take no scale of 1 or more, and confuse integers of small scales. A constant is
    rounded to the step that decides for each value of the tensor as the constant itself would. No
    value is equal to a constant between two steps.

    Args:
        function: Name of the class of the operation in `keras.ops`, such as `"Greater"`.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QCompare(function="Less")([np.array([[1, 5]]), np.array([[3, 3]])]).numpy().tolist()
    [[True, False]]
    """

    operators = ("CAST", *(code for _, code in _COMPARISONS.values()))
    plain_inputs = ("int",)
    shares_inputs = True
    functions = _COMPARISONS

    def float_forward(self, inputs, training=None):
        """Compares in float; plain integers as they are."""
        del training
        tensors = _listed(inputs)
        dtype = keras.backend.standardize_dtype(tensors[0].dtype)
        if self.constant is None or keras.backend.is_float_dtype(dtype):
            return self.decided(tensors, self.operand)
        return self.decided(tensors, ops.cast(self._step(_WHOLE), dtype))

    def integer(self, *inputs: OffsetInts, output: Any):
        """Compares the integers."""
        del output
        constant = None if self.constant is None else self._step(inputs[0].grid)
        return self.decided([x.values for x in inputs], constant)

    def lower(self, builder, *inputs):
        """Adds a CAST of each 8-bit tensor, and the comparison."""
        values = None
        if self.constant is not None and inputs[0].dtype != "float32":
            grid = self._input_grid() or _WHOLE
            values = ops.cast(self._step(grid), "int32") + grid.zero_point
            values = ops.convert_to_numpy(values).astype("int32")
        constant = self.lowered_operand(builder, inputs[0], values)
        return self.decide(
            builder, [_widened(builder, x, i) for i, x in enumerate(inputs)], constant
        )

    def _input_grid(self) -> Grid | None:
        """Returns the grid of the inputs; None in float, and for plain integers."""
        parameters = None if self.scheme is None else self._neighbours().inputs[0]
        return None if parameters is None else parameters.grid()

    def _step(self, grid: Grid) -> Any:
        """Returns the step of a grid to compare with, as a float32 whole number.

        Args:
            grid: The grid of the tensor.
        """
        assert self.constant is not None
        low, high = self._steps_beyond(grid)
        below, above = steps_around(ops.convert_to_tensor(self.operand), grid.scale, low, high)
        if self.function in ("Equal", "NotEqual"):
            return ops.where(ops.equal(below, above), below, low)
        is_second = self.constant.position == 1
        takes_below = ("Greater", "LessEqual") if is_second else ("Less", "GreaterEqual")
        return below if self.function in takes_below else above

    def _steps_beyond(self, grid: Grid) -> tuple[Any, Any]:
        """Returns a step below and a step above all that the tensor can have."""
        if grid is _WHOLE:
            return -_MOST_WHOLE, _MOST_WHOLE
        scheme = self._scheme()
        zero_point = ops.cast(grid.zero_point, "float32")
        return scheme.activation_low - 1 - zero_point, scheme.activation_high + 1 - zero_point


@register(operation_named(*_LOGIC))
@keras.saving.register_keras_serializable("keras_qat")
class QLogical(Decision):
    """And, or, or exclusive or, element by element, of booleans: one operator.

    Args:
        function: Name of the class of the operation in `keras.ops`, such as `"LogicalAnd"`.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> a, b = np.array([[True, True]]), np.array([[True, False]])
    >>> QLogical(function="LogicalAnd")([a, b]).numpy().tolist()
    [[True, False]]
    """

    operators = tuple(code for _, code in _LOGIC.values())
    functions = _LOGIC

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape. Raises if an input is not booleans."""
        check_booleans(self.name, _listed(inputs))
        return super().compute_output_spec(inputs, *args, **kwargs)

    def float_forward(self, inputs, training=None):
        """Combines the booleans."""
        del training
        constant = None if self.constant is None else ops.cast(self.operand, "bool")
        return self.decided(_listed(inputs), constant)

    def lower(self, builder, *inputs):
        """Adds the operator."""
        values = None
        if self.constant is not None:
            values = ops.convert_to_numpy(self.operand).astype(bool)
        return self.decide(builder, inputs, self.lowered_operand(builder, inputs[0], values))


@register(operation_named("LogicalNot"))
@keras.saving.register_keras_serializable("keras_qat")
class QLogicalNot(Elementwise):
    """Negates booleans: one LOGICAL_NOT.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QLogicalNot()(np.array([[True, False]])).numpy().tolist()
    [[False, True]]
    """

    operators = ("LOGICAL_NOT",)
    plain_dtype = "bool"
    plain_inputs = ("bool",)
    output_specification = None

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape. Raises if the input is not booleans."""
        check_booleans(self.name, [inputs])
        return super().compute_output_spec(inputs, *args, **kwargs)

    def float_forward(self, inputs, training=None):
        """Negates the booleans."""
        del training
        return ops.logical_not(inputs)

    def lower(self, builder, *inputs):
        """Adds one LOGICAL_NOT."""
        return builder.operator("LOGICAL_NOT", inputs, dtype="bool")


@register(operation_named("Cast"))
@keras.saving.register_keras_serializable("keras_qat")
class QNumber(Elementwise):
    """1 for true and 0 for false: one CAST, with a scale of 1.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QNumber()(np.array([[True, False]])).numpy().tolist()
    [[1.0, 0.0]]
    """

    operators = ("CAST",)
    plain_inputs = ("bool",)
    output_specification = Fixed(1.0, 0)

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape. Raises if the input is not booleans."""
        check_booleans(self.name, [inputs])
        return super().compute_output_spec(inputs, *args, **kwargs)

    def float_forward(self, inputs, training=None):
        """Returns the numbers."""
        del training
        return ops.cast(inputs, "float32")

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Returns the numbers, which are the integers."""
        del output
        return ops.cast(inputs[0].values, "float32")

    def lower(self, builder, *inputs):
        """Adds one CAST."""
        types = {"inDataType": "BOOL", "outDataType": builder.dtype.upper()}
        return builder.operator("CAST", inputs, options=types)


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]


def _widened(builder, x: Any, place: int) -> Any:
    """Adds a CAST of an 8-bit tensor to int32; returns others as they are."""
    if x.quantization is None:
        return x
    options = {"inDataType": x.dtype.upper(), "outDataType": "INT32"}
    part = f"operand{place}"
    return builder.operator("CAST", (x,), part=part, shape=x.shape, dtype="int32", options=options)
