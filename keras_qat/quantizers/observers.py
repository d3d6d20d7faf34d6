"""Observers, which hold the ranges of activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.reach import is_narrow, reach_width, sample_reach, whole_batch
from keras_qat.quantizers.specification import Free, Specification

# A range does not fit if most samples leave it by more than half of its width.
_FAR = 0.5
# A range is replaced if it fits none of this many samples in a row. A single sample may be an
# outlier, or small.
_ENOUGH_SAMPLES = 64
# Data that takes less of the usual range may be of another kind, and would lose two bits there.
_FAIR_PART = 0.25
# Values of `held`.
_MOVING, _HELD, _REPLACED = 0, 1, -1


@keras.saving.register_keras_serializable("keras_qat")
class RangeObserver(keras.layers.Layer):
    """Holds the observed minimum and maximum of one tensor.

    Calibration sets the range (`widen`), and training holds it. Without calibration, training moves
    the range (`track`) by its range rule. NaN and infinite values are not observed.

    Args:
        specification: The specification of the tensor.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        minimum: float32 scalar variable, the smallest value of the range.
        maximum: float32 scalar variable, the largest value of the range.
        updates: int32 scalar variable, the number of observations. 0: the tensor lacks min/max
            data. -1: the tensor has a default range.
        seen: float32 variable of shape (2,), the moving range of the values in training, as
            -minimum and maximum.
        held: int32 scalar variable. 1: the range was calibrated, and training holds it. 0: training
            moves the range. -1: training moves the range, because the calibrated range did not fit.
        unfit: int32 scalar variable, the number of samples in a row that the range does not fit.

    Example:
    >>> observer = RangeObserver()
    >>> observer.build()
    >>> observer.widen(-1.0, 3.0)
    >>> float(observer.maximum), int(observer.updates)
    (3.0, 1)
    """

    def __init__(self, specification: Free | None = None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.specification = specification or Free()

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
        """Whether the range was calibrated or trained."""
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
        """Whether training replaced a calibrated range that did not fit."""
        return _number(self.held) == _REPLACED

    @property
    def seen_range(self) -> tuple[float, float]:
        """The moving minimum and maximum of the values in training, also while a range is held."""
        low, high = ops.convert_to_numpy(self.seen)
        return -float(low), float(high)

    def widen(self, minimum: float, maximum: float, *, hold: bool = True) -> None:
        """Extends the range to cover [minimum, maximum]. The first call sets the range.

        Args:
            minimum: Smallest value of the tensor on calibration data.
            maximum: Largest value of the tensor on calibration data.
            hold: Whether training holds the range. If not, training moves it.
        """
        if self.is_observed:
            low, high = self.limits
            minimum, maximum = min(minimum, low), max(maximum, high)
        minimum, maximum = self._usual(minimum, maximum)
        self._set(minimum, maximum, max(_number(self.updates), 0) + 1)
        self.held.assign(_HELD if hold else _MOVING)

    def assume(self, minimum: float, maximum: float) -> None:
        """Sets a default range until the tensor is observed. Has no effect after that."""
        if not self.is_observed:
            self._set(minimum, maximum, -1)

    def reset(self) -> None:
        """Discards the range. The tensor lacks min/max data again."""
        self._set(0.0, 0.0, 0)

    def _set(self, minimum, maximum, updates: int) -> None:
        self.minimum.assign(minimum)
        self.maximum.assign(maximum)
        self.updates.assign(updates)
        self.seen.assign([-minimum, maximum])
        self.held.assign(_MOVING)
        self.unfit.assign(0)

    def track(self, x) -> None:
        """Moves the range with a batch, inside a training step, unless the range is held.

        A range that fits none of 64 samples in a row is replaced, even if it is held. This happens
        if the values have changed since calibration, for example because the statistics of batch
        normalizations were trained later. The old range would clip all values, or round all values
        to 0, without a gradient. A range that is not finite is replaced at once. So is a range of
        width 0, which was observed on zeros only. A batch without a finite value changes nothing.

        Args:
            x: float32 tensor, samples along the first axis. Values that are not finite are
                ignored.
        """
        held, old = self.held.value, ops.stack([-self.minimum, self.maximum.value])
        old_width = reach_width(old)
        limit = ops.maximum(old, 0.0) + _FAR * old_width
        batch, far, count = whole_batch(sample_reach(x), limit)
        is_seen = ops.isfinite(batch[0])
        batch = ops.where(is_seen, self._usual_reach(batch), self.seen.value)
        share = far / count
        is_unfit = ops.logical_or(share > 0.5, is_narrow(batch, old_width))
        unfit = ops.where(is_unfit, self.unfit + ops.cast(count, "int32"), 0)
        is_replaced = unfit >= _ENOUGH_SAMPLES
        if self.specification.keeps_calibration:
            is_replaced = ops.logical_and(is_replaced, held != _HELD)
        is_range = ops.logical_and(old_width > 0, ops.isfinite(self.maximum - self.minimum))
        is_known = ops.logical_and(is_range, self.updates > 0)
        is_replaced = ops.logical_or(is_replaced, ops.logical_not(is_known))
        # Far samples may be outliers. They move the range by their share of the batch.
        limit = old_width * ops.where(share > 0, share, 1.0)
        old_seen = self.seen.value
        seen = ops.where(is_replaced, batch, self.specification.rule.moved(old_seen, batch, limit))
        held = ops.where(is_replaced, -ops.abs(held), held)
        new = ops.where(held == _HELD, old, seen)
        self.minimum.assign(-new[0])
        self.maximum.assign(new[1])
        self.seen.assign(seen)
        self.held.assign(held)
        self.unfit.assign(ops.where(is_replaced, 0, unfit))
        count = ops.maximum(self.updates, 0) + 1
        self.updates.assign(ops.where(is_seen, count, self.updates.value))

    def _usual_reach(self, reach):
        if self.specification.usual_range is None:
            return reach
        low, high = self._usual(-reach[0], reach[1])
        return ops.stack([-low, high])

    def _usual(self, low, high):
        """Returns an observed range, or the usual range instead.

        The usual range is returned if the observed range is inside it and takes a fair part of it.
        """
        if self.specification.usual_range is None:
            return low, high
        least, most = self.specification.usual_range
        is_usual = ops.logical_and(low >= least, high <= most)
        is_usual = ops.logical_and(is_usual, high - low > _FAIR_PART * (most - least))
        return ops.where(is_usual, least, low), ops.where(is_usual, most, high)

    def load_own_variables(self, store):
        """Loads the variables. Files of version 0.1 may have only the first three."""
        if not store.keys() and self.specification.may_be_missing:
            self.assume(0.0, 0.0)
            return
        if len(store.keys()) > 3:
            super().load_own_variables(store)
            return
        minimum, maximum, updates = (store[key] for key in ("0", "1", "2"))
        self._set(minimum, maximum, int(updates[()]))
        # Training steps were counted as updates too. A single update is a calibration.
        self.held.assign(_HELD if _number(self.updates) == 1 else _MOVING)

    @classmethod
    def from_config(cls, config):
        """Makes an observer from the result of `get_config`."""
        parts = config["specification"]
        rule = keras.saving.deserialize_keras_object(parts["rule"])
        return cls(**{**config, "specification": Free(**{**parts, "rule": rule})})

    def get_config(self):
        """Returns the constructor's arguments."""
        rule = keras.saving.serialize_keras_object(self.specification.rule)
        parts = {**vars(self.specification), "rule": rule}
        return {**super().get_config(), "specification": parts}


def make_observers(
    specifications: Mapping[str, Specification], rule: RangeRule | None = None
) -> dict[str, RangeObserver]:
    """Makes an observer for each tensor that needs one, by the name of the tensor.

    Args:
        specifications: The specifications of a layer's tensors.
        rule: The rule by which training moves the ranges. By default each specification has one.

    Example:
    >>> [each.name for each in make_observers({"output": Free(), "product": Free()}).values()]
    ['range', 'product_range']
    """
    made = {}
    for tensor, specification in specifications.items():
        observed = specification.observed
        if observed is not None:
            observed = dataclasses.replace(observed, rule=rule or observed.rule)
            name = "range" if tensor == "output" else f"{tensor}_range"
            made[tensor] = RangeObserver(observed, name=name)
    return made


def _number(variable: keras.Variable) -> Any:
    """Returns the value of a scalar variable, which a `tf.distribute` strategy may mirror.

    `int` and `float` do not take mirrored variables.
    """
    return variable.numpy().item()
