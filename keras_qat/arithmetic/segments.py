"""A function of a 32-bit integer by one table, with finer steps for small integers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_int32

_RATIO_BITS = 2  # the steps of each segment are four times as wide as those before


@dataclasses.dataclass(frozen=True)
class Segments:
    """Maps integers from 0 to `greatest` to few consecutive indices, each for one interval.

    The index is the sum over segments `k` of `min(x // step[k], cap[k])`, which plain integer
    operators compute. After the first segment an interval is at most `4 / entries` of the
    integers in it wide.
    integers in it.

    Attributes:
        step_bits: Binary logarithm of the step of the first segment.
        entries: Steps of the first segment, a power of two.
        greatest: The largest integer. Larger integers have the same index.

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
        """The largest contribution of each segment to the index."""
        return tuple(min(self.entries, self.greatest >> shift) for shift in self.shifts)

    def index(self, x: Any) -> Any:
        """Returns the index of non-negative integers, int32.

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
        """The middle of each index's interval, float64. Unused indices have the next one's."""
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
