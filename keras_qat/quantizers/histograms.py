"""Counts of the values of a tensor, in bins of equal ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

# The bins of magnitudes: so many to a factor of 2, for so many factors below and above 1.
_BINS_PER_OCTAVE = 64
_OCTAVES = 32
BINS = 2 * _OCTAVES * _BINS_PER_OCTAVE


def count_values(x: Any) -> Any:
    """Counts values in bins: negative magnitudes downwards, 0, positive ones upwards.

    Args:
        x: float32 tensor.

    Returns:
        int32 tensor of shape (2 * BINS + 1,). Values beyond the last bins are counted in these.
    """
    x = ops.nan_to_num(ops.reshape(x, (-1,)))
    octave = ops.log2(ops.maximum(ops.abs(x), np.float32(2.0**-_OCTAVES))) + _OCTAVES
    bins = ops.clip(ops.floor(octave * _BINS_PER_OCTAVE), 0, BINS - 1) + 1
    places = ops.cast(ops.sign(x) * bins, "int32") + BINS
    return ops.segment_sum(ops.ones_like(places), places, num_segments=2 * BINS + 1)


def far_end(bins: int) -> float:
    """Returns the end of a bin that is further from 0; bins are counted from 0 up and down.

    Example:
    >>> far_end(BINS // 2), far_end(0)
    (1.0, 0.0)
    """
    return float(np.sign(bins) * 2.0 ** (abs(bins) / _BINS_PER_OCTAVE - _OCTAVES))


def filled_bins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bins that have values.

    Args:
        counts: The result of `count_values`.

    Returns:
        Three float64 arrays: the middle of each bin, its width, and its count.

    Example:
    >>> middles, widths, numbers = filled_bins(np.asarray(count_values(np.array([0.0, 1.0, 1.0]))))
    >>> middles.round(2).tolist(), widths.round(2).tolist(), numbers.tolist()
    ([0.0, 1.01], [0.0, 0.01], [1.0, 2.0])
    """
    (places,) = np.nonzero(counts)
    bins = places - BINS
    far = np.sign(bins) * 2.0 ** (np.abs(bins) / _BINS_PER_OCTAVE - _OCTAVES)
    near = far * 2.0 ** (-1 / _BINS_PER_OCTAVE)
    return (far + near) / 2, np.abs(far - near), counts[places].astype("float64")
