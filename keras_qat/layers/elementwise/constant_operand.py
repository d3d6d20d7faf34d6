"""Operations with a constant second operand: element-wise functions of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops


def floor_divide(x: Any, x2: float) -> Any:
    """Divides by a constant and rounds down.

    In float64, from which tables are made, each compiler computes the same result.

    Args:
        x: Float tensor.
        x2: The divisor.

    Returns:
        A tensor of whole numbers.

    Example:
    >>> floor_divide(ops.array([-1.0, 3.0]), 2.0).numpy().tolist()
    [-1.0, 1.0]
    """
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.floor_divide(x, x2)
    x, x2 = (x, x2) if x2 > 0 else (-x, -x2)
    # Compilers multiply by the reciprocal, which may be wrong by the last bit.
    near = ops.floor(x / x2)
    below = ops.cast(near * x2 > x, "float64")
    return near + ops.cast((near + 1.0) * x2 <= x, "float64") - below


def mod(x: Any, x2: float) -> Any:
    """Returns the remainder of the division by a constant, which has the sign of the constant.

    Args:
        x: Float tensor.
        x2: The divisor.

    Example:
    >>> mod(ops.array([-1.0, 3.0]), 2.0).numpy().tolist()
    [1.0, 1.0]
    """
    is_wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    return x - x2 * floor_divide(x, x2) if is_wide else ops.mod(x, x2)


# The functions by their names in `keras.ops`.
FUNCTIONS: Mapping[str, Callable[[Any, float], Any]] = {
    "floor_divide": floor_divide,
    "mod": mod,
    "power": ops.power,
}


class ConstantOperand(keras.layers.Layer):
    """An operation with a constant second operand, such as `x ** 3`.

    The operations of `keras.ops` have two operands; this layer has one.

    Args:
        function: Name of the operation: `"floor_divide"`, `"mod"` or `"power"`.
        number: The second operand.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> float(ConstantOperand("power", 3.0)(ops.array(-2.0)))
    -8.0
    """

    def __init__(self, function: str, number: float, **kwargs):
        super().__init__(**kwargs)
        self.function, self.number = function, float(number)

    def call(self, inputs):
        """Computes the operation."""
        return FUNCTIONS[self.function](inputs, self.number)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "function": self.function, "number": self.number}
