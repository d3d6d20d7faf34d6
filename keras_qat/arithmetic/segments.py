"""Functions of a 32-bit integer by one table: finer steps where the integer is small."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_int32

_RATIO_BITS = 2  # each segment's steps are four times as wide as those before it


@dataclasses.dataclass(frozen=True)
class Segments:
    """Maps integers from 0 to `greatest` to few consecutive ones, each of them an interval.

    The index is the sum over segments `k` of `min(x // step[k], cap[k])`, which plain integer
    operators compute. Beyond the first segment no interval is wider than `4 / entries` of the
    integers in it.

    Attributes:
        step_bits: Binary logarithm of the step of the first segment.
        entries: Steps of the first segment, a power of two.
        greatest: The largest integer; larger ones are taken for it.

    Example:
    >>> segments = Segments(0, 4, 40)
    >>> segments.steps, segments.caps
    ((1, 4, 16), (4, 4, 2))
    >>> segments.index(ops.array([0, 3, 4, 7, 8, 16, 40], "int32")).numpy()
    array([ 0,  3,  5,  5,  6,  9, 10], dtype=int32)
    """

    step_bits: int
    entries: int
    greatest: int

    @functools.cached_property
    def shifts(self) -> tuple[int, ...]:
        """Binary logarithm of the step of each segment."""
        shifts = [self.step_bits]
        while self.entries << shifts[-1] <= self.greatest:
            shifts.append(shifts[-1] + _RATIO_BITS)
        return tuple(shifts)

    @property
    def steps(self) -> tuple[int, ...]:
        """Step of each segment."""
        return tuple(1 << shift for shift in self.shifts)

    @property
    def caps(self) -> tuple[int, ...]:
        """What each segment adds to the index at most."""
        return tuple(min(self.entries, self.greatest >> shift) for shift in self.shifts)

    def index(self, x: Any) -> Any:
        """Returns the index of integers, int32; none of them may be negative.

        Args:
            x: int32 tensor.
        """
        parts = [
            ops.minimum(ops.right_shift(x, as_int32(shift)), as_int32(cap))
            for shift, cap in zip(self.shifts, self.caps, strict=True)
        ]
        return functools.reduce(ops.add, parts)

    @functools.cached_property
    def middles(self) -> np.ndarray:
        """The middle of each index's interval, float64; of an unused index that of the next."""
        multiples = [
            np.arange(cap + 1, dtype="int64") << shift
            for shift, cap in zip(self.shifts, self.caps, strict=True)
        ]
        lows = np.unique(np.concatenate(multiples))
        highs = np.append(lows[1:] - 1, self.greatest)
        index = sum(
            np.minimum(lows >> shift, cap)
            for shift, cap in zip(self.shifts, self.caps, strict=True)
        )
        nearest = np.searchsorted(index, np.arange(sum(self.caps) + 1))
        return ((lows + highs) / 2.0)[nearest]
