"""The range rule of percentiles."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.histograms import BINS, count_values, far_end
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.weights import SMALLEST_SCALE, Axes
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class Percentile(RangeRule):
    """The range without a small share of the values at each end.

    The minimum is the percentile `100 - percentile` of all values of the tensor, and the maximum
    the percentile `percentile`. Both are exact to 1.1 %, by which the range may be too wide: values
    are counted in bins of that width. A range that would be 0 is that of the extremes, as for a
    tensor that is almost always 0.

    Attributes:
        percentile: The share of values in percent, more than 50 and at most 100.

    Raises:
        InvalidRangeRuleError: If `percentile` is something else.

    Example:
    >>> Percentile(100).range(np.array([[-1.0, 2.0], [0.0, 5.0]]), None)
    (-1.0, 5.0)
    """

    name = "percentile"
    has_weight_steps = True

    percentile: float = 99.99

    def __post_init__(self):
        if not 50 < self.percentile <= 100:
            raise InvalidRangeRuleError(
                "The percentile of a range rule is outside (50, 100].",
                received=f"percentile={self.percentile!r}",
                expected="50 < percentile <= 100",
                fix="Say which values the range covers: Percentile(99.9) covers 99.9 % of those "
                "below its maximum.",
            )

    def weight_step(self, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the step at which the percentile of the weights' magnitudes is not clipped."""
        sizes = ops.abs(weights)
        most = ops.max(sizes, axis=axis, keepdims=True)
        usual = ops.quantile(sizes, self.percentile / 100, axis=axis, keepdims=True)
        covering = super().weight_step(weights, axis, scheme)
        share = ops.reshape(usual, most.shape) / ops.maximum(most, SMALLEST_SCALE)
        return ops.where(share > 0, covering * share, covering)

    def moved_step(self, step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the step of the weights now."""
        del step
        return self.weight_step(weights, axis, scheme)

    def sums(self, x: Any) -> Any:
        """Counts the values in bins."""
        return count_values(x)

    def range(self, extremes: np.ndarray, sums: np.ndarray | None) -> tuple[float, float]:
        """Returns the ends of the bins that hold the percentiles, within the extremes."""
        least, most = super().range(extremes, None)
        if sums is None or self.percentile == 100:
            return least, most
        last = int(sums.sum()) - 1
        rank = int(np.ceil(self.percentile / 100 * last))
        upto = np.cumsum(sums)
        low, high = np.searchsorted(upto, [last - rank, rank], side="right") - BINS
        ends = max(least, far_end(low - (low > 0))), min(most, far_end(high + (high < 0)))
        return ends if any(ends) else (least, most)
