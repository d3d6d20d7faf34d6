"""Observers, which hold the ranges of activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import across_replicas, outermost_scope, read
from keras_qat.quantizers.learned import gradient_scale, scaled, with_gradient
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.reach import batch_reach
from keras_qat.quantizers.specification import Free, Specification
from keras_qat.quantizers.tracking import (
    FROZEN,
    HELD,
    MOVING,
    REPLACED,
    frozen,
    next_state,
    usual,
)
from keras_qat.quantizers.weights import SMALLEST_SCALE, reciprocal


@keras.saving.register_keras_serializable("keras_qat")
class RangeObserver(keras.layers.Layer):
    """Holds the observed minimum and maximum of one tensor.

    Calibration sets the range (`widen`), and training holds it. Without calibration, training moves
    the range (`track`) by its range rule. NaN and infinite values are not observed.

    Args:
        specification: The specification of the tensor.
        learns: Whether the rule learns the range, by the gradient of two factors.
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
            4 is added while the layer of the tensor is frozen, which holds the range.
        unfit: int32 scalar variable, the number of samples in a row that the range does not fit.
        factors: float32 trained variable of shape (2,), the factors of the minimum and the maximum;
            None unless `learns`.

    Example:
    >>> observer = RangeObserver()
    >>> observer.build()
    >>> observer.widen(-1.0, 3.0)
    >>> float(observer.maximum), int(observer.updates)
    (3.0, 1)
    """

    def __init__(self, specification: Free | None = None, *, learns: bool = False, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.specification = specification or Free()
        self.learns = learns
        self.factors: Any = None

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

        with outermost_scope():
            self.minimum = variable("minimum", "float32")
            self.maximum = variable("maximum", "float32")
            self.updates = variable("updates", "int32")
            self.seen = variable("seen", "float32", (2,))
            self.held = variable("held", "int32")
            self.unfit = variable("unfit", "int32")
        if self.learns:
            with outermost_scope():
                self.factors = self.add_weight(name="factors", shape=(2,))
            self._reset_factors()

    def _reset_factors(self) -> None:
        """Sets the factors to their start for the rule: the range is then as calibrated."""
        if self.factors is not None:
            start = 1 / self.specification.rule.learning_rate_multiplier
            self.factors.assign(np.full(2, start, "float32"))

    def set_rule(self, rule: RangeRule) -> None:
        """Sets the rule by which training moves or learns the range, which stays the same."""
        before = self.specification.rule.learning_rate_multiplier
        self.specification = dataclasses.replace(self.specification, rule=rule)
        if self.factors is not None:
            self.factors.assign(self.factors * (before / rule.learning_rate_multiplier))

    @property
    def ends(self) -> tuple[Any, Any]:
        """The minimum and the maximum that are in use, float32 scalar tensors."""
        if self.factors is None:
            return self.minimum, self.maximum
        multiplier = self.specification.rule.learning_rate_multiplier
        low, high = ops.unstack(ops.convert_to_tensor(self.factors), 2)
        return scaled(self.minimum, low, multiplier), scaled(self.maximum, high, multiplier)

    def trained_ends(self, count: int, steps: int) -> tuple[Any, Any]:
        """Returns the same ends, with the gradient of learned ranges.

        Gradient descent changes an end as it would change `steps` learned steps.

        Args:
            count: The number of values of a sample.
            steps: The number of steps of the range.
        """
        if self.factors is None:
            return self.ends
        low, high = ops.unstack(ops.convert_to_tensor(self.factors), 2)
        size = reciprocal(ops.maximum(self.maximum - self.minimum, SMALLEST_SCALE))
        slope = size * (gradient_scale(count, steps) * steps**2)
        pairs = zip(self.ends, (low, high), (self.minimum, self.maximum), strict=True)
        least, most = (with_gradient(x, f, slope * ops.sign(end)) for x, f, end in pairs)
        return least, most

    @property
    def trainable(self) -> bool:
        """Whether training may change the range: a frozen layer holds the range that it has."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        if self.built:
            self.held.assign(frozen(self.held.value, self.updates.value, not value))

    @property
    def limits(self) -> tuple[float, float]:
        """The minimum and the maximum as Python numbers."""
        if self.factors is None:
            return float(_number(self.minimum)), float(_number(self.maximum))
        low, high = (float(ops.convert_to_numpy(end)) for end in self.ends)
        return low, high

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
        return _number(self.held) in (HELD, HELD + FROZEN)

    @property
    def was_replaced(self) -> bool:
        """Whether training replaced a calibrated range that did not fit."""
        return _number(self.held) in (REPLACED, REPLACED + FROZEN)

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
        minimum, maximum = usual(minimum, maximum, self.specification)
        self._set(minimum, maximum, max(_number(self.updates), 0) + 1)
        self.held.assign((HELD if hold else MOVING) + (0 if self.trainable else FROZEN))

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
        self.held.assign(MOVING)
        self.unfit.assign(0)
        self._reset_factors()

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
        own = self.minimum, self.maximum, self.updates, self.seen, self.held, self.unfit
        state = [read(variable) for variable in own]
        parts = across_replicas(batch_reach(x, *state[:2]))
        new = next_state(*state, parts, specification=self.specification)
        for variable, value in zip(own, new, strict=True):
            variable.assign(value)

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
        self.held.assign(HELD if _number(self.updates) == 1 else MOVING)

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
        learns = {"learns": True} if self.learns else {}
        return {**super().get_config(), "specification": parts, **learns}


def make_observers(
    specifications: Mapping[str, Specification],
    rule: RangeRule | None = None,
    learns_output: bool = False,
) -> dict[str, RangeObserver]:
    """Makes an observer for each tensor that needs one, by the name of the tensor.

    Args:
        specifications: The specifications of a layer's tensors.
        rule: The rule by which training moves the ranges. By default each specification has one.
        learns_output: Whether the output's range is learned, if the rule learns ranges.

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
            is_learned = learns_output and observed.rule.learns
            is_own = tensor == "output" and isinstance(specification, Free)
            made[tensor] = RangeObserver(observed, learns=is_learned and is_own, name=name)
    return made


def _number(variable: keras.Variable) -> Any:
    """Returns the value of a scalar variable, which a `tf.distribute` strategy may mirror.

    `int` and `float` do not take mirrored variables.
    """
    return variable.numpy().item()
