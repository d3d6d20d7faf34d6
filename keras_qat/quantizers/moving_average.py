"""The range rule of ranges that move with training."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.robust import Robust


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class MovingAverage(Robust):
    """Calibrates as `Robust` does; training moves the ranges instead of holding them.

    Attributes:
        momentum: How much of a wider range a training step keeps, in [0, 1].

    Raises:
        InvalidRangeRuleError: If `momentum` is not in [0, 1].
    """

    name = "moving_average"
    holds = False

    momentum: float = Robust.momentum

    def __post_init__(self):
        if not 0 <= self.momentum <= 1:
            raise InvalidRangeRuleError(
                "The momentum of a range rule is outside [0, 1].",
                received=f"momentum={self.momentum!r}",
                expected="0 <= momentum <= 1",
                fix="Leave it out: a training step then keeps 0.998 of a wider range.",
            )
