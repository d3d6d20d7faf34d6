"""Observation of the range that an activation takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidDefaultRangeError

# A range is of no use where it would have to be this much wider to hold a batch, or where a batch
# takes so small a part of it that 8 bits are 4.
_FAR = 2.0
_NARROW = 1.0 / 16.0
# Data that takes less of its usual range may be another kind of data: it would lose two bits.
_FAIR_PART = 0.25


@keras.saving.register_keras_serializable("keras_qat")
class RangeObserver(keras.layers.Layer):
    """Holds the observed minimum and maximum of one tensor.

    Calibration sets the range once (`widen`); each training step then moves it towards the
    range of its batch (`track`), as in Jacob et al., "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877.
    NaN and infinite values are not observed.

    Args:
        momentum: How much of the old range a training step keeps, in [0, 1]. 1 keeps a range
            that was observed once as it is.
        usual_range: The range (min, max) that such a tensor is known to have, such as (0, 255) of
            pixels: observed ranges within it become it, unless they are a small part. None if
            nothing is known.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        minimum: float32 scalar variable, the smallest value observed.
        maximum: float32 scalar variable, the largest value observed.
        updates: int32 scalar variable, how often the range was set or moved. 0 means that
            the tensor lacks min/max data, -1 that it has a default range for want of its own.

    Example:
    >>> observer = RangeObserver()
    >>> observer.build()
    >>> observer.widen(-1.0, 3.0)
    >>> float(observer.maximum), int(observer.updates)
    (3.0, 1)
    """

    def __init__(
        self,
        momentum: float = 0.99,
        usual_range: tuple[float, float] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.usual_range = usual_range

    def build(self, input_shape=None):
        """Creates the three scalar variables."""
        del input_shape

        def scalar(name, dtype, aggregation):
            return self.add_weight(
                name=name,
                shape=(),
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                aggregation=aggregation,
            )

        self.minimum = scalar("minimum", "float32", "mean")
        self.maximum = scalar("maximum", "float32", "mean")
        self.updates = scalar("updates", "int32", "only_first_replica")

    @property
    def is_observed(self) -> bool:
        """Whether the range is the tensor's own: calibrated or trained."""
        return int(self.updates) > 0

    @property
    def is_default(self) -> bool:
        """Whether the range is a default, which the first observation replaces."""
        return int(self.updates) < 0

    def widen(self, minimum: float, maximum: float) -> None:
        """Extends the range to cover [minimum, maximum]; the first call sets it."""
        if self.is_observed:
            minimum = min(minimum, float(self.minimum))
            maximum = max(maximum, float(self.maximum))
        minimum, maximum = self._usual(minimum, maximum)
        self.minimum.assign(minimum)
        self.maximum.assign(maximum)
        self.updates.assign(max(int(self.updates), 0) + 1)

    def assume(self, minimum: float, maximum: float) -> None:
        """Takes [minimum, maximum] until the tensor is observed; does nothing if it was."""
        if not self.is_observed:
            self.minimum.assign(minimum)
            self.maximum.assign(maximum)
            self.updates.assign(-1)

    def reset(self) -> None:
        """Forgets the range: the tensor lacks min/max data again."""
        self.minimum.assign(0.0)
        self.maximum.assign(0.0)
        self.updates.assign(0)

    def track(self, x) -> None:
        """Moves the range towards that of a batch, inside a training step.

        A range that a batch leaves by more than its own width, or of which it takes less than a
        sixteenth, is replaced: it was observed when the tensor was another one, as before the
        statistics of batch normalizations were trained. Moved by a hundredth each step, it would
        clip everything, or round everything to 0, without a gradient, for long. So is a range that
        is not finite. A batch without a finite value changes nothing.

        Args:
            x: float32 tensor of any shape. Its values that are not finite are left out.
        """
        low, high = finite_extremes(x)
        is_seen = low <= high
        is_finite = ops.isfinite(self.maximum - self.minimum)
        is_new = ops.logical_or(self.updates < 1, ops.logical_not(is_finite))
        if self.momentum < 1:
            is_new = ops.logical_or(is_new, self._is_outdated(low, high))
        low, high = self._usual(low, high)
        keep = ops.where(is_new, 0.0, self.momentum)
        for end, seen in ((self.minimum, low), (self.maximum, high)):
            # `end + (seen - end)` would not be `seen` exactly.
            moved = ops.where(is_new, seen, end + (1.0 - keep) * (seen - end))
            end.assign(ops.where(is_seen, moved, ops.convert_to_tensor(end)))
        updates = ops.convert_to_tensor(self.updates)
        self.updates.assign(ops.where(is_seen, ops.maximum(updates, 0) + 1, updates))

    def _usual(self, low, high):
        """The usual range instead of an observed one that takes a fair part of it."""
        if self.usual_range is None:
            return low, high
        least, most = self.usual_range
        is_usual = ops.logical_and(low >= least, high <= most)
        is_usual = ops.logical_and(is_usual, high - low > _FAIR_PART * (most - least))
        return ops.where(is_usual, least, low), ops.where(is_usual, most, high)

    def _is_outdated(self, low, high):
        """Whether the range is of no use for a batch; 0, which each grid holds, is in both."""
        least, most = ops.minimum(self.minimum, 0.0), ops.maximum(self.maximum, 0.0)
        low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
        width, both = most - least, ops.maximum(high, most) - ops.minimum(low, least)
        # What is all 0 may just have been dropped.
        is_narrow = ops.logical_and(high > low, high - low < _NARROW * width)
        return ops.logical_or(both > _FAR * width, is_narrow)

    def get_config(self):
        """Returns the constructor's arguments."""
        usual = {"usual_range": self.usual_range}
        return {**super().get_config(), "momentum": self.momentum, **usual}


def finite_extremes(x) -> tuple[Any, Any]:
    """Returns the smallest and the largest finite value of a tensor, without a gradient.

    A sum tells whether all values are finite: minima and maxima lose NaN on some backends. Leaving
    values out takes several times as long as the extremes alone, so that it is done only if needed.

    Args:
        x: float32 tensor of any shape.

    Returns:
        Two float32 scalar tensors; infinity and minus infinity if no value is finite.

    Example:
    >>> [float(end) for end in finite_extremes(ops.array([3.0, np.nan, -1.0, np.inf]))]
    [-1.0, 3.0]
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))

    def all_values():
        return ops.min(x), ops.max(x)

    def finite_values():
        is_finite = ops.isfinite(x)
        low = ops.min(ops.where(is_finite, x, np.float32(np.inf)))
        return low, ops.max(ops.where(is_finite, x, np.float32(-np.inf)))

    return ops.cond(ops.isfinite(ops.sum(x)), all_values, finite_values)


class ValueRange:
    """The range of a tensor that is always at hand, such as a table of weights.

    It has what `RangeParameters` needs of a `RangeObserver`, but observes nothing: the range is
    that of the values now.

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


def checked_default_range(default_ranges_stats: Any) -> tuple[float, float]:
    """Returns a range for tensors that lack min/max data, widened to contain 0.

    Args:
        default_ranges_stats: What should be a pair (min, max) of numbers.

    Raises:
        InvalidDefaultRangeError: If it is no pair of finite numbers in this order, or float32
            cannot hold the width of the range.

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
