"""The steps of a layer's weights, as variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.quantizers.learned import gradient_scale, scaled, with_gradient
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.weights import SMALLEST_SCALE, Axes, reciprocal
from keras_qat.scheme import Scheme


class WeightRange(keras.layers.Layer):
    """Holds the size of a step of a layer's weights, for rules that clip or learn.

    The size is that of the kernel as the layer holds it, before a batch normalization is folded
    into it: changes of the statistics scale steps and weights alike. It is a variable, so training,
    inference and export have the same bits.

    Args:
        rule: The rule.
        shape: The shape of the steps, which broadcasts against the kernel.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        step: float32 variable. 0 until `fit`: the steps then cover all weights.
        factor: float32 trained variable, times which the steps are multiplied; None for a rule that
            does not learn.

    Example:
    >>> from keras_qat.quantizers.range_rules import Mse
    >>> from keras_qat.scheme import get_scheme
    >>> found = WeightRange(Mse(), (1, 1))
    >>> found.build()
    >>> found.fit(ops.array([[0.0, 12.7, -3.0]]), 1.0, 1, get_scheme("int8"))
    >>> round(float(found.step[0, 0]), 6)
    0.1
    """

    def __init__(self, rule: RangeRule, shape: Sequence[int], **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.rule, self._shape = rule, tuple(shape)
        self.factor: Any = None

    def build(self, input_shape=None):
        """Creates the variables."""
        del input_shape
        self.step = self.add_weight(
            name="step",
            shape=self._shape,
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        if self.rule.learns:
            self.factor = self.add_weight(
                name="factor",
                shape=self._shape,
                initializer=keras.initializers.Constant(1 / self.rule.learning_rate_multiplier),
            )

    def fit(self, weights: Any, size: Any, axis: Axes, scheme: Scheme) -> None:
        """Sets the steps by the rule.

        Args:
            weights: float32 tensor with values, the weights as they are deployed.
            size: float32 tensor or number, the factor of a folded batch normalization.
            axis: The axes that share a step, or None for all.
            scheme: The scheme of the weights.
        """
        self.step.assign(self.rule.weight_step(weights, axis, scheme) / size)
        if self.factor is not None:
            multiplier = self.rule.learning_rate_multiplier
            self.factor.assign(ops.full(self._shape, 1 / multiplier))

    def track(self, weights: Any, size: Any, axis: Axes, scheme: Scheme) -> None:
        """Moves the steps by the rule, inside a training step, see `fit`."""
        before = self.step * size
        self.step.assign(self.rule.moved_step(before, weights, axis, scheme) / size)

    def current(self, size: Any) -> Any:
        """Returns the steps of the deployed weights.

        Args:
            size: float32 tensor, the factor of a folded batch normalization, not negative.
        """
        if self.factor is None:
            return ops.convert_to_tensor(self.step) * size
        return scaled(self.step, self.factor, self.rule.learning_rate_multiplier) * size

    def trained(self, size: Any, count: int, scheme: Scheme) -> Any:
        """Returns the same steps, with the gradient of learned steps.

        A training step of gradient descent changes a step as if it were trained itself.

        Args:
            size: As in `current`.
            count: The number of weights that share a step.
            scheme: The scheme of the weights.
        """
        value = self.current(size)
        if self.factor is None:
            return ops.stop_gradient(value)
        slope = size * reciprocal(ops.maximum(self.step, SMALLEST_SCALE))
        slope = slope * gradient_scale(count, scheme.largest_weight)
        return with_gradient(value, self.factor, slope)
