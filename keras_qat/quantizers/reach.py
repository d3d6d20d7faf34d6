"""The reach of samples: the values with which a training step updates a range."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_qat.backend import across_replicas, compiled

# A range is useless if no sample uses a sixteenth of it, since then 8 bits are 4.
_NARROW = 1.0 / 16.0


def sample_reach(x):
    """Returns how far the finite values of each sample reach from 0, without a gradient.

    A sum shows whether all values are finite: minima and maxima lose NaN on some backends. To leave
    out values takes several times as long as the extremes, so it is done only if necessary.

    Args:
        x: float32 tensor, samples along the first axis.

    Returns:
        float32 tensor of shape (samples, 2): minus the minimum, and the maximum. Minus infinity for
        a sample without a finite value.

    Example:
    >>> sample_reach(ops.array([[3.0, -1.0], [np.nan, 2.0]])).numpy().tolist()
    [[1.0, 3.0], [-2.0, 2.0]]
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))
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


def whole_batch(samples, limit):
    """Combines the samples of all replicas. Each replica has a part of the batch.

    Args:
        samples: float32 tensor of shape (samples, 2), the reach of each sample.
        limit: float32 tensor of shape (2,), a reach.

    Returns:
        The reach of the batch, of shape (2,), the number of samples beyond the limit on either
        side, and the number of samples. All are float32.
    """
    parts = across_replicas(_part(samples, limit))
    counts = ops.sum(parts[:, 2:], axis=0)
    return ops.max(parts[:, :2], axis=0), counts[0], counts[1]


@compiled
def _part(samples, limit):
    """Returns the reach of the samples of a replica, how many are beyond the limit, and all."""
    is_far = ops.cast(ops.any(samples > limit, axis=1), "float32")
    count = ops.sum(ops.ones_like(samples[:, 0]))
    return ops.concatenate([ops.max(samples, axis=0), ops.stack([ops.sum(is_far), count])])


def is_narrow(batch, width):
    """Returns whether a batch uses too small a part of a range. Dropout may have made zeros."""
    own = reach_width(batch)
    return ops.logical_and(own > 0, own < _NARROW * width)
