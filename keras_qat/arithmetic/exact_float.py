"""Floating-point steps that give the same bits under every compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

_LIMIT = 64  # exponents are distinguished from -64 to 64, far beyond any scale ratio in use
_TOO_LARGE = 2.0**29  # far outside every integer type of an output, yet 2x fits int32


def exponent(x: Any) -> Any:
    """Returns the binary exponent `e` of `x = f * 2**e` with `0.5 <= f < 1`, as `frexp` does.

    The result of a logarithm may be rounded across a power of two, so it is compared and corrected.

    Args:
        x: float64 tensor of any shape, not negative. Call this function within
            `backend.float64()`.

    Returns:
        int32 tensor of the same shape; -64 for 0 and for numbers below 2**-64.

    Example:
    >>> exponent(ops.cast([0.5, 0.75, 1.0, 5.0], "float64")).numpy()
    array([0, 0, 1, 3], dtype=int32)
    """
    logarithm = ops.log2(ops.maximum(ops.cast(x, "float32"), np.float32(2.0**-_LIMIT)))
    near = ops.clip(ops.cast(ops.floor(logarithm), "int32"), -_LIMIT, _LIMIT - 2)
    power = power_of_two(near)
    return near + ops.cast(x >= power, "int32") + ops.cast(x >= power * 2.0, "int32")


def power_of_two(n: Any) -> Any:
    """Returns 2**n as float64, exactly.

    Args:
        n: int32 tensor, from -128 to 128. Call this function within `backend.float64()`.

    Returns:
        float64 tensor of the same shape.

    Example:
    >>> power_of_two(ops.cast([-1, 3], "int32")).numpy()
    array([0.5, 8. ])
    """
    table = ops.cast(2.0 ** np.arange(-2 * _LIMIT, 2 * _LIMIT + 1), "float64")
    return ops.take(table, n + 2 * _LIMIT, axis=0)


def quotient(a: Any, b: Any) -> Any:
    """Divides with the correct rounding, even where the compiler multiplies by a reciprocal.

    The first quotient may be wrong in its last bits. Its remainder is computed without any
    rounding (each product below has at most 53 significant bits), and corrects the
    quotient. For this the quotient is split in two parts, the first of which is a float32.

    Args:
        a: float64 tensor of at most 48 significant bits, such as the product of two float32
            numbers; not negative.
        b: float64 tensor of at most 24 significant bits, such as a float32 number; positive.
            Make both tensors within `backend.float64()`.

    Returns:
        float64 tensor: `a / b`, rounded to nearest.

    Example:
    >>> quotient(ops.cast([1.0], "float64"), ops.cast([49.0], "float64")).numpy() == 1 / 49
    array([ True])
    """
    rough = a / b
    high = ops.cast(ops.cast(rough, "float32"), "float64")
    remainder = (a - high * b) - (rough - high) * b
    return rough + remainder / b


def scale_ratio(input_scale: Any, weight_scale: Any, output_scale: Any) -> Any:
    """Returns `input_scale * weight_scale / output_scale` as a C++ double computes it.

    Args:
        input_scale: float32 scalar.
        weight_scale: float32 scalar or `(channels,)`.
        output_scale: float32 scalar. Call this function within `backend.float64()`.

    Returns:
        float64 tensor, scalar or `(channels,)`.

    Example:
    >>> scale_ratio(0.5, [0.25, 0.5], 3.0).numpy() == [0.125 / 3, 0.25 / 3]
    array([ True,  True])
    """
    product = as_float64(input_scale) * as_float64(weight_scale)  # exact: 24 + 24 bits
    return quotient(product, as_float64(output_scale))


def as_float64(x: Any) -> Any:
    """Widens a float32 tensor (or a value that converts to one) to float64.

    Args:
        x: float32 tensor, NumPy array or Python number. Call this function within
            `backend.float64()`.

    Returns:
        float64 tensor of the same shape.

    Example:
    >>> float(as_float64(0.1)) == float(np.float32(0.1))
    True
    """
    return ops.cast(as_float32(x), "float64")


def as_float32(x: Any) -> Any:
    """Converts to a float32 tensor.

    Args:
        x: Tensor, variable, NumPy array or Python number.

    Returns:
        float32 tensor.

    Example:
    >>> as_float32(2).numpy().dtype.name
    'float32'
    """
    return ops.convert_to_tensor(x, dtype="float32")


def as_int32(x: Any) -> Any:
    """Converts to an int32 tensor.

    Args:
        x: Tensor, variable, NumPy array or Python number.

    Returns:
        int32 tensor.

    Example:
    >>> as_int32(np.int64(7)).numpy().dtype.name
    'int32'
    """
    return ops.convert_to_tensor(x, dtype="int32")


def round_half_away(x: Any) -> Any:
    """Rounds to the nearest integer, ties away from zero, as C++ `std::round` does.

    `x` may be a product, so nothing is added to it before it is an integer.

    Args:
        x: float32 or float64 tensor.

    Returns:
        int32 tensor. Magnitudes above 2**29 saturate there.

    Example:
    >>> round_half_away(ops.array([-2.5, -0.4, 0.5, 1.49999988])).numpy()
    array([-3,  0,  1,  1], dtype=int32)
    """
    size = ops.abs(x)
    doubled = ops.cast(ops.where(size < _TOO_LARGE, size * 2, 2 * _TOO_LARGE), "int32")
    rounded = ops.right_shift(doubled + 1, 1)
    return ops.where(x < 0, -rounded, rounded)
