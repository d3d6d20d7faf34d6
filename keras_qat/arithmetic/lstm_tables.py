"""The sigmoid and the hyperbolic tangent of 16-bit integers, as the kernels of LSTM compute them.

A table has an entry for each of the 65,536 integers. The tables are computed in integers, so they
do not depend on a C library.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

_BITS = 15  # fraction bits of a result
_INPUTS = np.arange(-(2**_BITS), 2**_BITS, dtype="int64")
# The scales of a cell state are 2**-15 to 2**-9: it has 0 to 6 integer bits.
CELL_BITS = 7

# TensorFlow Lite Micro interpolates a table of 65536 * sigmoid(i / 24). These entries are one more
# than the rounded value.
_ONE_MORE = (
    *(4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40),
    *(41, 43, 44, 45, 46, 49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255),
)


class GateTables(NamedTuple):
    """The functions of an LSTM.

    Attributes:
        sigmoid: int32 array of shape (65536,): the result, in steps of 2**-15, for each integer
            from -32768, in steps of 2**-12.
        tanh: int32 array of shape (7, 65536): the same for integers of 0 to 6 integer bits, that is
            in steps of 2**-15 to 2**-9.
    """

    sigmoid: np.ndarray
    tanh: np.ndarray


@functools.cache
def interpolated_tables() -> GateTables:
    """Returns the functions of TensorFlow Lite Micro, which interpolates a table of 256 entries.

    Source: `Logistic` and `Tanh` of 16-bit integers in TFLite's
    `kernels/internal/reference/integer_ops/logistic.h` and `tanh.h`.

    Example:
    >>> tables = interpolated_tables()
    >>> tables.sigmoid[32768 + 4096], tables.tanh[3, 32768 + 4096]  # of 1.0
    (np.int32(23956), np.int32(24956))
    """
    tanh = [_interpolated_tanh(bits) for bits in range(CELL_BITS)]
    return GateTables(_interpolated_sigmoid().astype("int32"), np.stack(tanh).astype("int32"))


@functools.cache
def fixed_point_tables() -> GateTables:
    """Returns the functions of LiteRT, which computes in 16-bit fixed point.

    Source: `PortableApplySigmoid` and `PortableApplyTanh` in TFLite's
    `kernels/internal/reference/portable_tensor_utils.cc`, and gemmlowp's `fixedpoint/fixedpoint.h`.

    Example:
    >>> tables = fixed_point_tables()
    >>> tables.sigmoid[32768 + 4096], tables.tanh[3, 32768 + 4096]  # of 1.0
    (np.int32(23952), np.int32(24964))
    """
    tanh = [_fixed_point_tanh(bits) for bits in range(CELL_BITS)]
    return GateTables(_fixed_point_sigmoid().astype("int32"), np.stack(tanh).astype("int32"))


@functools.cache
def sigmoid_entries() -> np.ndarray:
    """Returns the table of the sigmoid that kernels for 16-bit integers interpolate.

    Source: `sigmoid_table_uint16` in TFLite's `kernels/internal/common.h`.

    Returns:
        int64 array of shape (256,): 65536 * sigmoid(i / 24), rounded, some of them up.

    Example:
    >>> sigmoid_entries()[[0, 255]].tolist()
    [32768, 65535]
    """
    exact = 65536.0 / (1.0 + np.exp(-np.arange(256) / 24.0))
    entries = np.minimum(np.floor(exact + 0.5), 65535).astype("int64")
    entries[list(_ONE_MORE)] += 1
    return entries


def _interpolation(x: np.ndarray, bits: int, most: int) -> np.ndarray:
    """Interpolates the sigmoid of magnitudes, whose `bits` last bits lie between two entries."""
    entries = sigmoid_entries()
    size = np.abs(x)
    place = np.minimum(size >> bits, 254)
    part = size & (2**bits - 1)
    value = (entries[place] << bits) + part * (entries[place + 1] - entries[place])
    return np.where(size >> bits >= 255, most, value)


def _interpolated_sigmoid() -> np.ndarray:
    x = _INPUTS * 3
    value = _interpolation(x, 9, 0x7FFF << 10)
    return np.where(x >= 0, value + 2**9, 2**25 - value + 2**9 - 1) >> 10


def _interpolated_tanh(bits: int) -> np.ndarray:
    """Returns the tanh of integers with some integer bits: three bits need no shift."""
    shift = bits - 3
    x = (_INPUTS * 3) << shift if shift >= 0 else (_INPUTS * 3 + (1 << (-shift - 1))) >> -shift
    value = _interpolation(x, 8, 0xFFFF << 8)
    return np.where(x >= 0, value - 2**23 + 2**7, 2**23 - value + 2**7 - 1) >> 8


def _fixed_point_sigmoid() -> np.ndarray:
    positive = np.where(_INPUTS > 0, _INPUTS, _wrap(-_INPUTS))
    value = _shift(_reciprocal(_exp(_wrap(-positive), 3)), 1)
    value = np.where(_INPUTS > 0, value, 2**_BITS - 1 - value)
    return np.where(_INPUTS == 0, 2 ** (_BITS - 1), value)


def _fixed_point_tanh(bits: int) -> np.ndarray:
    """Returns the tanh of integers with some integer bits."""
    negative = np.where(_INPUTS < 0, _INPUTS, -_INPUTS)
    # (1 - x) / (1 + x) for x = exp(2a): twice the input has one more integer bit.
    value = _shift(_reciprocal(_exp(negative, bits + 1)) - 2**13, 2)
    return np.where(_INPUTS == 0, 0, np.where(_INPUTS < 0, -value, value))


def _exp(a: np.ndarray, bits: int) -> np.ndarray:
    """Computes `exp` of values that are not positive and have some integer bits."""
    fraction = _BITS - bits
    quarter = 2 ** (fraction - 2)
    rest = (a & (quarter - 1)) - quarter
    result, remainder = _exp_of_quarter(_shift(rest, bits)), rest - a
    for exponent in range(-2, 5):
        if bits > exponent:
            factor = _constant(np.exp(-(2.0**exponent)), 0)
            is_set = (remainder & (1 << (fraction + exponent))) != 0
            result = np.where(is_set, _product(result, factor), result)
    if bits > 5:
        result = np.where(a < -(32 << fraction), 0, result)
    return np.where(a == 0, 2**_BITS - 1, result)


def _exp_of_quarter(a: np.ndarray) -> np.ndarray:
    """Computes `exp` of values from -1/4 to 0, by a Taylor expansion around -1/8."""
    middle, third = _constant(np.exp(-0.125), 0), _constant(1 / 3, 0)
    x = a + 2 ** (_BITS - 3)
    x2 = _product(x, x)
    x3, x4 = _product(x2, x), _product(x2, x2)
    terms = _shift(_product(_shift(x4, -2) + x3, third) + x2, -1)
    return _saturate(middle + _product(middle, x + terms))


def _reciprocal(a: np.ndarray) -> np.ndarray:
    """Computes `2 / (1 + a)` of values from 0 to 1, with two integer bits, by Newton's method."""
    half = (a + 2**_BITS) >> 1
    x = _constant(48 / 17, 2) + _product(half, _constant(-32 / 17, 2))
    for _ in range(3):
        error = 2**13 - _product(half, x)
        x = x + _shift(_product(x, error), 2)
    return x


def _constant(value: float, bits: int) -> int:
    """Returns a real number in 16-bit fixed point: that of 32 bits, rounded once more."""
    wide = int(np.floor(value * 2.0 ** (31 - bits) + 0.5))
    return int(_shift(np.int64(wide), -16))


def _product(a: Any, b: Any) -> Any:
    """Returns the high half of twice a product: `SaturatingRoundingDoublingHighMul` of 16 bits."""
    return np.minimum((a * b + 2**14) >> _BITS, 2**_BITS - 1)


def _shift(x: Any, exponent: int) -> Any:
    """Multiplies by a power of two, saturating or rounding to nearest, ties away from zero."""
    if exponent >= 0:
        return _saturate(x << exponent)
    return (x + (1 << (-exponent - 1)) - (x < 0)) >> -exponent


def _saturate(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -(2**_BITS), 2**_BITS - 1)


def _wrap(x: np.ndarray) -> np.ndarray:
    """Returns what 16 bits hold of an integer: -32768 has no opposite."""
    return ((x + 2**_BITS) & 0xFFFF) - 2**_BITS
