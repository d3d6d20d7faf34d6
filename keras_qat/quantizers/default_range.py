"""A range for tensors that were not observed."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_qat.errors import InvalidDefaultRangeError


def checked_default_range(default_ranges_stats: Any) -> tuple[float, float]:
    """Returns a range for tensors that lack min/max data, widened to contain 0.

    Args:
        default_ranges_stats: The argument of the user: a pair (min, max) of numbers.

    Raises:
        InvalidDefaultRangeError: If the argument is not a pair of finite numbers in this order, or
            float32 cannot hold the width of the range.

    Example:
    >>> checked_default_range((2, 6))
    (0.0, 6.0)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            ends = np.asarray(default_ranges_stats, "float32")
        except (TypeError, ValueError, OverflowError):
            ends = np.full(2, np.nan, "float32")
        low, high = np.minimum(ends, 0), np.maximum(ends, 0)
        is_range = ends.shape == (2,) and ends[0] <= ends[1] and np.isfinite(high[1] - low[0])
    if not is_range:
        raise InvalidDefaultRangeError(
            "Tensors cannot have that as their default range.",
            received=f"default_ranges_stats={default_ranges_stats!r}",
            expected="a pair (min, max) of finite numbers, min <= max",
            fix="Give a range that covers the values of the tensors that lack min/max data, as "
            "`keras_qat.suggest_default_ranges(model, data)` finds it.",
        )
    return float(low[0]), float(high[1])
