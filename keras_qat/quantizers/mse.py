"""The range rule of the least squared error."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_qat.quantizers.histograms import count_values
from keras_qat.quantizers.least_error import least_error_range, least_error_step, refined_step
from keras_qat.quantizers.robust import Robust
from keras_qat.quantizers.weights import Axes
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class Mse(Robust):
    """The range with the least squared error of quantization, within the extremes.

    Few integers are better spent on the usual values than on the rarest ones, which are clipped.
    Steps of weights are searched when a model is made or calibrated, for each channel separately.
    At each training step they follow the weights: the integers stay, and the size of a step becomes
    the best one for them.

    Example:
    >>> from keras_qat.quantizers.weights import Axes
    >>> from keras_qat.scheme import get_scheme
    >>> w = keras.ops.array([[0.31, -0.42, 0.14, 0.09, -0.24, 0.36, -1.4]])
    >>> int8 = get_scheme("int8")
    >>> step = Mse().weight_step(w, 1, int8)
    >>> bool(abs(step[0, 0] - 1.4 / 127) < 1e-4)
    True
    """

    name = "mse"
    has_weight_steps = True

    def sums(self, x: Any) -> Any:
        """Counts the values in bins."""
        return count_values(x)

    def range_of(self, extremes: Any, sums: Any, scheme: Scheme) -> tuple[float, float]:
        """Searches the range with the least squared error, within the extremes."""
        least, most = self.range(extremes, None)
        if sums is None:
            return least, most
        return least_error_range(sums, least, most, scheme.activation_high - scheme.activation_low)

    def weight_step(self, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Searches the size of a step with the least squared error."""
        return least_error_step(weights, axis, scheme)

    def moved_step(self, step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the best size of a step for the integers that the weights have now."""
        return refined_step(step, weights, axis, scheme)
