"""The range of a tensor with known values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


class ValueRange:
    """The range of a tensor with known values, such as a table of weights.

    It has the attributes of a `RangeObserver` that `RangeParameters` needs, but observes nothing:
    the range is that of the current values.

    Args:
        values: Returns the tensor.

    Example:
    >>> float(ValueRange(lambda: ops.array([0.5, -2.0])).minimum)
    -2.0
    """

    def __init__(self, values: Callable[[], Any]):
        self._values = values

    @property
    def minimum(self):
        """The smallest value, a float32 scalar tensor."""
        return ops.stop_gradient(ops.min(self._values()))

    @property
    def maximum(self):
        """The largest value, a float32 scalar tensor."""
        return ops.stop_gradient(ops.max(self._values()))

    @property
    def ends(self):
        """The smallest and the largest value."""
        return self.minimum, self.maximum

    def trained_ends(self, count: int, steps: int):
        """Returns the ends: training changes the values, not their range."""
        del count, steps
        return self.ends
