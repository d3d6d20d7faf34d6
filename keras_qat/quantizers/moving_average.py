"""The range rule of ranges that move with training."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.robust import Robust
from keras_qat.quantizers.weights import Axes
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class MovingAverage(Robust):
    """Calibrates as `Robust` does; training moves the ranges instead of holding them.

    Ranges of weights cover all weights. They widen at once, and shrink by a moving average.

    Attributes:
        momentum: How much of a wider range a training step keeps, in [0, 1].

    Raises:
        InvalidRangeRuleError: If `momentum` is not in [0, 1].
    """

    name = "moving_average"
    holds = False
    has_weight_steps = True

    momentum: float = Robust.momentum

    def moved_step(self, step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the steps that cover all weights; they become smaller by a moving average."""
        new = self.weight_step(weights, axis, scheme)
        return ops.maximum(new, step * self.momentum + new * (1.0 - self.momentum))

    def __post_init__(self):
        if not 0 <= self.momentum <= 1:
            raise InvalidRangeRuleError(
                "The momentum of a range rule is outside [0, 1].",
                received=f"momentum={self.momentum!r}",
                expected="0 <= momentum <= 1",
                fix="Leave it out: a training step then keeps 0.998 of a wider range.",
            )
