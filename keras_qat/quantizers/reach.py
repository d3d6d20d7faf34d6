"""The reach of samples: the values with which a training step updates a range."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_qat.backend import traced_once

# A range is useless if no sample uses a sixteenth of it, since then 8 bits are 4.
_NARROW = 1.0 / 16.0
# A range does not fit if most samples leave it by more than half of its width.
_FAR = 0.5


def batch_reach(x, minimum, maximum):
    """Returns how far the finite values of a batch reach from 0, without a gradient.

    Args:
        x: float32 tensor, samples along the first axis.
        minimum: float32 scalar tensor, the smallest value of a range.
        maximum: float32 scalar tensor, the largest value of the range.

    Returns:
        float32 tensor of shape (1, 4): minus the minimum, and the maximum, or minus infinity for a
        batch without a finite value; the number of samples that leave the range by more than half
        of its width; and the number of samples.

    Example:
    >>> batch_reach(ops.array([[3.0, -1.0], [np.nan, 2.0]]), 0.0, 1.0).numpy().tolist()
    [[1.0, 3.0, 2.0, 2.0]]
    """
    return _batch_reach(ops.stop_gradient(ops.convert_to_tensor(x)), minimum, maximum)


@traced_once
def _batch_reach(x, minimum, maximum):
    samples, old = _sample_reach(x), ops.stack([-minimum, maximum])
    limit = ops.maximum(old, 0.0) + _FAR * reach_width(old)
    is_far = ops.cast(ops.any(samples > limit, axis=1), "float32")
    count = ops.sum(ops.ones_like(samples[:, 0]))
    parts = ops.concatenate([ops.max(samples, axis=0), ops.stack([ops.sum(is_far), count])])
    return ops.expand_dims(parts, 0)


def _sample_reach(x):
    """Returns -minimum and maximum of each sample, of shape (samples, 2).

    A sum shows whether all values are finite: minima and maxima lose NaN on some backends. To leave
    out values takes several times as long as the extremes, so it is done only if necessary.
    """
    axes = tuple(range(1, len(x.shape)))

    def reach(lows, highs):
        """Returns -minimum and maximum of each sample."""
        ends = (ops.min(lows, axes), ops.max(highs, axes)) if axes else (lows, highs)
        return ops.stack([-ends[0], ends[1]], axis=1)

    def finite_values():
        """Returns the reach without values that are not finite."""
        is_finite = ops.isfinite(x)
        infinity = np.float32(np.inf)
        return reach(ops.where(is_finite, x, infinity), ops.where(is_finite, x, -infinity))

    return ops.cond(ops.isfinite(ops.sum(x)), lambda: reach(x, x), finite_values)


def reach_width(reach):
    """Returns the width of a range that includes 0, as each grid does."""
    return ops.sum(ops.maximum(reach, 0.0))


def is_narrow(batch, width):
    """Returns whether a batch uses too small a part of a range. Dropout may have made zeros."""
    own = reach_width(batch)
    return ops.logical_and(own > 0, own < _NARROW * width)
