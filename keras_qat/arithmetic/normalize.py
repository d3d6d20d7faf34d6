"""Division of integers by their standard deviation, root mean square or norm."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float64,
    as_int32,
    exponent,
    power_of_two,
    round_half_away,
)
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.segments import Segments
from keras_qat.backend import compiled, float64, maximum

INT32_END = 2**31
FRACTION = 22  # of a numerator: 255 * 2**22 is just less than 2**30
LARGEST_GROUP = 2**20
_MEAN_FRACTION = 8
_ENTRIES = 512  # at most 1/128 of a sum of squares, 1/512 of its root, is lost
_FINE_STEPS = 4  # a step is 1/256 of the square of an integer 1, where the sum is that fine
_GREATEST_HALF = 2**30 - 1
_KEPT_BITS = 16  # of a divisor


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What normalizing a group of int8 values depends on, except for the scales.

    With `e = q - m`, `m` the mean rounded to an integer (or the zero point, if the mean is not
    subtracted), and `r` what rounding it left:
    `sum((q - mean)**2) = sum(e**2) - count * r**2`. Nothing but `r` is rounded.

    Attributes:
        count: How many values a group has, `LARGEST_GROUP` at most.
        kind: `"layer"` for `(x - mean) / sqrt(variance + epsilon)`, `"rms"` for
            `x / sqrt(mean(x**2) + epsilon)`, `"unit"` for `x / max(norm, epsilon)`.
        epsilon: As above.

    Example:
    >>> Normalization(64, "layer", 1e-3).mean_bits, Normalization(64, "rms", 1e-3).mean_bits
    (8, 0)
    """

    count: int
    kind: str
    epsilon: float

    @property
    def centered(self) -> bool:
        """Whether the mean is subtracted."""
        return self.kind == "layer"

    @functools.cached_property
    def mean_bits(self) -> int:
        """Fractional bits of the mean: its sum and the square of `r` fit an int32."""
        if not self.centered:
            return 0
        bits = _MEAN_FRACTION
        while self.count * max(2 ** (7 + bits) + 1, 4 ** (bits - 1)) >= INT32_END:
            bits -= 1
        return bits

    @functools.cached_property
    def square_bits(self) -> int:
        """Half the fractional bits of the sum of squares; negative if squares are shortened."""
        bits = self.mean_bits
        while self._greatest(bits) >= INT32_END:
            bits -= 1
        return bits

    @property
    def square_unit(self) -> int:
        """What squares are divided by, before they are summed."""
        return 4 ** max(-self.square_bits, 0)

    @property
    def sum_factor(self) -> int:
        """What their sum is multiplied by."""
        return 4 ** max(self.square_bits, 0)

    @property
    def rest_unit(self) -> int:
        """What `count * r**2` is divided by."""
        return 4 ** (self.mean_bits - self.square_bits)

    @functools.cached_property
    def segments(self) -> Segments:
        """How the sum of squares becomes an index of the table of divisors."""
        step_bits = 2 * max(self.square_bits - _FINE_STEPS, 0)
        return Segments(step_bits, _ENTRIES, self._greatest(self.square_bits))

    def _greatest(self, bits: int) -> int:
        # No standard deviation is more than half of 255; one more for the rounded mean.
        square = 128**2 if self.centered else 255**2
        if bits >= 0:
            return self.count * square * 4**bits
        return self.count * (square // 4**-bits + 1)


@compiled
def half_divisors(input_scale: Any, output_scale: Any, *, normalization: Normalization) -> Any:
    """Returns half of what numerators are divided by, for each index of a sum of squares.

    It is computed in double and keeps 16 significant bits, rounded from 24: compilers may
    compute the last bits of a square root differently.

    Args:
        input_scale: float32 scalar.
        output_scale: float32 scalar.
        normalization: What is computed.

    Returns:
        int32 tensor `(indices,)`, from 1 to 2**30 - 1.

    Example:
    >>> rule = Normalization(4, "rms", 0.0)
    >>> table = half_divisors(1.0, 0.5, normalization=rule)
    >>> float(table[rule.segments.index(4 * 3**2)]) / 2**21
    1.5
    """
    squares = normalization.segments.middles * 4.0**-normalization.square_bits
    with float64():
        scale = as_float64(input_scale)
        epsilon = ops.cast(np.float64(normalization.epsilon), "float64")
        if normalization.kind == "unit":
            root = maximum(ops.cast(np.sqrt(squares), "float64") * scale, epsilon)
        else:
            means = ops.cast(squares / normalization.count, "float64")
            root = ops.sqrt(means * (scale * scale) + epsilon)
        half = root * (as_float64(output_scale) / scale) * 2.0 ** (FRACTION - 1)
        least, most = (ops.cast(np.float64(x), "float64") for x in (0.5, 2.0**30))
        half = ops.where(half > most, most, ops.where(half < least, least, half))
        size = exponent(half)
        fine = round_half_away(half * power_of_two(24 - size))
    kept = ops.right_shift(fine + 2**7, as_int32(24 - _KEPT_BITS))
    left = ops.left_shift(kept, ops.maximum(size - _KEPT_BITS, 0))
    dropped = ops.maximum(_KEPT_BITS - size, 0)
    rounding = ops.right_shift(ops.left_shift(as_int32(1), dropped), as_int32(1))
    return clip(ops.right_shift(left + rounding, dropped), 1, _GREATEST_HALF)


@compiled
def normalize(
    x: Any,
    halves: Any,
    zero_point: Any,
    *,
    axes: tuple[int, ...],
    normalization: Normalization,
    low: int,
    high: int,
) -> Any:
    """Normalizes groups of integers, in plain int32 arithmetic.

    No step leaves the range of int32: `|x - mean| <= 255`, so that numerators are less than
    `2**30` in size, and so is the half divisor that is added to round.

    Args:
        x: int32 tensor, int8 values; minus their zero point unless the mean is subtracted.
        halves: int32 tensor, from `half_divisors`.
        zero_point: int32 scalar, of the output.
        axes: The axes that a group extends over.
        normalization: What is computed.
        low: The least output.
        high: The greatest output.

    Returns:
        int32 tensor like `x`. Of equal values with the mean subtracted, all are the zero point.

    Example:
    >>> rule = Normalization(2, "layer", 0.0)
    >>> halves = half_divisors(1.0, 0.5, normalization=rule)
    >>> options = {"axes": (1,), "normalization": rule, "low": -128, "high": 127}
    >>> normalize(ops.array([[3, 7], [5, 5]], "int32"), halves, 10, **options).numpy()
    array([[ 8, 12],
           [10, 10]], dtype=int32)
    """
    n, unit, bits = normalization.count, normalization.square_unit, normalization.mean_bits
    rest = None
    if normalization.centered:
        mean = (_total(x, axes) * 2**bits + n // 2) // n
        rounded = (mean + 2 ** (bits - 1)) // 2**bits
        x, rest = x - rounded, mean - rounded * 2**bits
    squares = x * x if unit == 1 else (x * x + unit // 2) // unit
    total = _total(squares, axes) * normalization.sum_factor
    if rest is not None:
        total = ops.maximum(total - rest * rest * n // normalization.rest_unit, 0)
    half = ops.take(halves, normalization.segments.index(total), axis=0)
    offset = half if rest is None else half - rest * 2 ** (FRACTION - bits)
    q = (x * 2**FRACTION + offset) // (half * 2)
    return clip(q + as_int32(zero_point), low, high)


def _total(x: Any, axes: tuple[int, ...]) -> Any:
    return ops.cast(ops.sum(x, axis=axes, keepdims=True), "int32")
