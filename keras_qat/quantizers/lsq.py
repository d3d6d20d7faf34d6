"""The range rule of learned step sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.mse import Mse
from keras_qat.quantizers.weights import Axes
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class Lsq(Mse):
    """Ranges that training learns by their gradient, from those with the least squared error.

    The step of weights, and both ends of the range of an activation, are a reference times a factor
    that is trained. Factors start at the same value everywhere, so an optimizer such as Adam
    changes all ranges by the same share, whatever their size.
    Sources: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153, for
    steps and the scale of their gradient; Bhalgat et al., "LSQ+", https://arxiv.org/abs/2004.09576,
    for ranges with an offset.

    Attributes:
        learning_rate_multiplier: The learning rate of ranges, relative to that of the optimizer.
            With a multiplier of 1 and a learning rate of 0.001, Adam changes a range by at most
            0.1 % of its first size for each training step.

    Raises:
        InvalidRangeRuleError: If the multiplier is not positive and finite.
    """

    name = "lsq"
    learns = True

    learning_rate_multiplier: float = 1.0

    def __post_init__(self):
        if not 0 < self.learning_rate_multiplier < float("inf"):
            raise InvalidRangeRuleError(
                "The learning rate multiplier of a range rule is not positive and finite.",
                received=f"learning_rate_multiplier={self.learning_rate_multiplier!r}",
                expected="0 < learning_rate_multiplier < inf",
                fix="Leave it out: ranges then have the learning rate of the optimizer. "
                'range_rule="mse" has ranges that training does not learn.',
            )

    def moved(self, seen: Any, batch: Any, limit: Any) -> Any:
        """Returns the same reach: the factors of both ends are trained instead."""
        del batch, limit
        return seen

    def moved_step(self, step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the same size: the factor is trained instead."""
        del weights, axis, scheme
        return step
