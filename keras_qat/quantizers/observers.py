"""Observation of the range that an activation takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import across_replicas
from keras_qat.errors import InvalidDefaultRangeError

# A range is of no use where most samples leave it by more than half of its width, or where no
# sample takes a sixteenth of it, so that 8 bits are 4.
_FAR = 0.5
_NARROW = 1.0 / 16.0
# So many samples in a row have to agree on that: one of them may be an outlier, or small.
_ENOUGH_SAMPLES = 64
# Data that takes less of its usual range may be another kind of data: it would lose two bits.
_FAIR_PART = 0.25
# What `held` says of a range.
_MOVING, _HELD, _REPLACED = 0, 1, -1


@keras.saving.register_keras_serializable("keras_qat")
class RangeObserver(keras.layers.Layer):
    """Holds the observed minimum and maximum of one tensor.

    Calibration sets the range (`widen`), and training holds it. A range without calibration moves
    with training (`track`): it widens to each batch at once and shrinks by a moving average, after
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877. An average in both
    directions would be narrower the smaller the batches are. NaN and infinite values are not
    observed.

    Args:
        momentum: How much of a wider range a training step keeps, in [0, 1].
        usual_range: The range (min, max) that such a tensor is known to have, such as (0, 255) of
            pixels: observed ranges within it become it, unless they are a small part. None if
            nothing is known.
        keeps_calibration: Whether training holds a calibrated range even if no sample fits it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        minimum: float32 scalar variable, the smallest value of the range.
        maximum: float32 scalar variable, the largest value of the range.
        updates: int32 scalar variable, how often a range was observed. 0 means that
            the tensor lacks min/max data, -1 that it has a default range for want of its own.
        seen: float32 variable of shape (2,), how far the moving range that training sees reaches
            from 0 down and up: -minimum and maximum.
        held: int32 scalar variable. 1: the range was calibrated, and training holds it. 0: it moves
            with training. -1: it moves, because the calibrated one did not fit the training.
        unfit: int32 scalar variable, how many samples in a row the range does not fit.

    Example:
    >>> observer = RangeObserver()
    >>> observer.build()
    >>> observer.widen(-1.0, 3.0)
    >>> float(observer.maximum), int(observer.updates)
    (3.0, 1)
    """

    def __init__(
        self,
        momentum: float = 0.998,
        usual_range: tuple[float, float] | None = None,
        keeps_calibration: bool = False,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.momentum = momentum
        self.usual_range = usual_range
        self.keeps_calibration = keeps_calibration

    def build(self, input_shape=None):
        """Creates the variables."""
        del input_shape

        def variable(name, dtype, shape=()):
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",  # `track` assigns the same on each replica
            )

        self.minimum = variable("minimum", "float32")
        self.maximum = variable("maximum", "float32")
        self.updates = variable("updates", "int32")
        self.seen = variable("seen", "float32", (2,))
        self.held = variable("held", "int32")
        self.unfit = variable("unfit", "int32")

    @property
    def limits(self) -> tuple[float, float]:
        """The minimum and the maximum as Python numbers."""
        return float(_number(self.minimum)), float(_number(self.maximum))

    @property
    def is_observed(self) -> bool:
        """Whether the range is the tensor's own: calibrated or trained."""
        return _number(self.updates) > 0

    @property
    def is_default(self) -> bool:
        """Whether the range is a default, which the first observation replaces."""
        return _number(self.updates) < 0

    @property
    def is_held(self) -> bool:
        """Whether the range was calibrated, and training holds it."""
        return _number(self.held) == _HELD

    @property
    def was_replaced(self) -> bool:
        """Whether training replaced a calibrated range that did not fit it."""
        return _number(self.held) == _REPLACED

    @property
    def seen_range(self) -> tuple[float, float]:
        """The moving minimum and maximum that training sees, also while a range is held."""
        low, high = ops.convert_to_numpy(self.seen)
        return -float(low), float(high)

    def widen(self, minimum: float, maximum: float, *, hold: bool = True) -> None:
        """Extends the range to cover [minimum, maximum]; the first call sets it.

        Args:
            minimum: Smallest value of the tensor on calibration data.
            maximum: Largest one.
            hold: Whether training holds the range, or moves it on.
        """
        if self.is_observed:
            low, high = self.limits
            minimum, maximum = min(minimum, low), max(maximum, high)
        minimum, maximum = self._usual(minimum, maximum)
        self._set(minimum, maximum, max(_number(self.updates), 0) + 1)
        self.held.assign(_HELD if hold else _MOVING)

    def assume(self, minimum: float, maximum: float) -> None:
        """Takes [minimum, maximum] until the tensor is observed; does nothing if it was."""
        if not self.is_observed:
            self._set(minimum, maximum, -1)

    def reset(self) -> None:
        """Forgets the range: the tensor lacks min/max data again."""
        self._set(0.0, 0.0, 0)

    def _set(self, minimum, maximum, updates: int) -> None:
        self.minimum.assign(minimum)
        self.maximum.assign(maximum)
        self.updates.assign(updates)
        self.seen.assign([-minimum, maximum])
        self.held.assign(_MOVING)
        self.unfit.assign(0)

    def track(self, x) -> None:
        """Moves the range with a batch, inside a training step, unless it is held.

        A range that fits none of 64 samples in a row is replaced, a held one too: it was
        observed when the tensor was another one, as before the statistics of batch normalizations
        were trained. It would clip everything, or round everything to 0, without a gradient. A
        range that is not finite, or that has width 0, because there were only zeros so far, is
        replaced at once. A batch without a finite value changes nothing.

        Args:
            x: float32 tensor, samples along the first axis. Values that are not finite are left
                out.
        """
        held, old = self.held.value, ops.stack([-self.minimum, self.maximum.value])
        width = _width(old)
        batch, far, count = _whole_batch(sample_reach(x), ops.maximum(old, 0.0) + _FAR * width)
        is_seen = ops.isfinite(batch[0])
        batch = ops.where(is_seen, self._usual_reach(batch), self.seen.value)
        share = far / count
        is_unfit = ops.logical_or(share > 0.5, _is_narrow(batch, width))
        unfit = ops.where(is_unfit, self.unfit + ops.cast(count, "int32"), 0)
        is_replaced = unfit >= _ENOUGH_SAMPLES
        if self.keeps_calibration:
            is_replaced = ops.logical_and(is_replaced, held != _HELD)
        is_range = ops.logical_and(width > 0, ops.isfinite(self.maximum - self.minimum))
        is_known = ops.logical_and(is_range, self.updates > 0)
        is_replaced = ops.logical_or(is_replaced, ops.logical_not(is_known))
        seen = ops.where(is_replaced, batch, self._moved(batch, width, share))
        held = ops.where(is_replaced, -ops.abs(held), held)
        new = ops.where(held == _HELD, old, seen)
        self.minimum.assign(-new[0])
        self.maximum.assign(new[1])
        self.seen.assign(seen)
        self.held.assign(held)
        self.unfit.assign(ops.where(is_replaced, 0, unfit))
        count = ops.maximum(self.updates, 0) + 1
        self.updates.assign(ops.where(is_seen, count, self.updates.value))

    def _moved(self, batch, width, share):
        """How far what training sees reaches after a batch.

        Samples that are far away move it by their share of the batch, since they may be outliers.
        """
        change = batch - self.seen
        limit = width * ops.where(share > 0, share, 1.0)
        shrunk = ops.minimum(change, 0.0) * (1.0 - self.momentum)
        return self.seen + ops.maximum(shrunk, ops.minimum(change, limit))

    def _usual_reach(self, reach):
        if self.usual_range is None:
            return reach
        low, high = self._usual(-reach[0], reach[1])
        return ops.stack([-low, high])

    def _usual(self, low, high):
        """The usual range instead of an observed one that takes a fair part of it."""
        if self.usual_range is None:
            return low, high
        least, most = self.usual_range
        is_usual = ops.logical_and(low >= least, high <= most)
        is_usual = ops.logical_and(is_usual, high - low > _FAIR_PART * (most - least))
        return ops.where(is_usual, least, low), ops.where(is_usual, most, high)

    def load_own_variables(self, store):
        """Loads the variables; version 0.1 had the first three only."""
        if len(store.keys()) > 3:
            super().load_own_variables(store)
            return
        minimum, maximum, updates = (store[key] for key in ("0", "1", "2"))
        self._set(minimum, maximum, int(updates[()]))
        # Training steps counted as updates too.
        self.held.assign(_HELD if _number(self.updates) == 1 else _MOVING)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {
            "momentum": self.momentum,
            "usual_range": self.usual_range,
            "keeps_calibration": self.keeps_calibration,
        }
        return {**super().get_config(), **own}


def sample_reach(x):
    """Returns how far the finite values of each sample reach from 0, without a gradient.

    A sum tells whether all values are finite: minima and maxima lose NaN on some backends. Leaving
    values out takes several times as long as the extremes alone, so that it is done only if needed.

    Args:
        x: float32 tensor, samples along the first axis.

    Returns:
        float32 tensor of shape (samples, 2): minus the minimum, and the maximum; minus infinity for
        a sample without a finite value.

    Example:
    >>> sample_reach(ops.array([[3.0, -1.0], [np.nan, 2.0]])).numpy().tolist()
    [[1.0, 3.0], [-2.0, 2.0]]
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    axes = tuple(range(1, len(x.shape)))

    def reach(lows, highs):
        ends = (ops.min(lows, axes), ops.max(highs, axes)) if axes else (lows, highs)
        return ops.stack([-ends[0], ends[1]], axis=1)

    def finite_values():
        is_finite = ops.isfinite(x)
        infinity = np.float32(np.inf)
        return reach(ops.where(is_finite, x, infinity), ops.where(is_finite, x, -infinity))

    return ops.cond(ops.isfinite(ops.sum(x)), lambda: reach(x, x), finite_values)


def _number(variable: keras.Variable) -> Any:
    """The value of a scalar: `int` and `float` do not take the mirrored ones of a strategy."""
    return variable.numpy().item()


def _width(reach):
    """The width of a range that holds 0, as each grid does."""
    return ops.sum(ops.maximum(reach, 0.0))


def _whole_batch(samples, limit):
    """Sums up the samples of all replicas, each of which has a part of the batch.

    Args:
        samples: float32 tensor of shape (samples, 2), how far each sample reaches.
        limit: float32 tensor of shape (2,), a reach.

    Returns:
        How far the batch reaches, of shape (2,); how many samples reach further than the limit on
        either side; and how many samples there are. All are float32.
    """
    is_far = ops.cast(ops.any(samples > limit, axis=1), "float32")
    counts = ops.stack([ops.sum(is_far), ops.cast(ops.shape(samples)[0], "float32")])
    parts = across_replicas(ops.concatenate([ops.max(samples, axis=0), counts]))
    counts = ops.sum(parts[:, 2:], axis=0)
    return ops.max(parts[:, :2], axis=0), counts[0], counts[1]


def _is_narrow(batch, width):
    """Whether a batch takes too small a part of a range; what is all 0 may have been dropped."""
    own = _width(batch)
    return ops.logical_and(own > 0, own < _NARROW * width)


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
