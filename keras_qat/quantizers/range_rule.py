"""The base class of the rules by which tensors get their ranges."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.quantizers.weights import Axes, weight_grid
from keras_qat.scheme import Scheme


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class RangeRule:
    """A rule that gives a tensor its range: the smallest and the largest value of all samples.

    Calibration calls `range`, and training calls `moved`. A subclass overrides one of them or the
    attributes. It is a frozen dataclass, whose fields are its configuration, and is registered with
    `keras.saving.register_keras_serializable`, because models save their rule.

    Attributes:
        name: The name of the rule in arguments, such as `calibrate(range_rule="minmax")`.
        sets_outliers_aside: Whether calibration leaves out samples whose inputs are far larger than
            all others.
        holds: Whether training holds a calibrated range.
        momentum: How much of a wider range a training step keeps, in [0, 1].
        learns: Whether training learns ranges by their gradient.
        has_weight_steps: Whether layers keep the size of a step of their weights. If not, weights
            have the range of their extremes at each moment.
        learning_rate_multiplier: The learning rate of learned ranges, relative to that of the
            optimizer.

    Example:
    >>> RangeRule().range(np.array([[-1.0, 2.0], [0.0, 5.0]]), None)
    (-1.0, 5.0)
    """

    name = ""
    sets_outliers_aside = False
    holds = True
    momentum = 0.998
    learns = False
    has_weight_steps = False
    learning_rate_multiplier = 1.0

    def sums(self, x: Any) -> Any:
        """Returns statistics of a tensor that calibration adds up over the batches.

        Args:
            x: float32 tensor, the values of one batch. It may be symbolic.

        Returns:
            A tensor whose shape does not depend on the batch; None if the extremes of each sample
            are enough.
        """
        del x

    def range(self, extremes: np.ndarray, sums: np.ndarray | None) -> tuple[float, float]:
        """Returns the range of a tensor on calibration data.

        Args:
            extremes: float32 array of shape (samples, 2), the smallest and the largest value of
                each sample.
            sums: The statistics of `sums`, added up over all batches.

        Returns:
            The minimum and the maximum.
        """
        del sums
        return float(extremes[:, 0].min()), float(extremes[:, 1].max())

    def range_of(
        self, extremes: np.ndarray, sums: np.ndarray | None, scheme: Scheme
    ) -> tuple[float, float]:
        """Returns the result of `range` for a scheme, of which some rules take the steps."""
        del scheme
        return self.range(extremes, sums)

    def moved(self, seen: Any, batch: Any, limit: Any) -> Any:
        """Returns how far a range reaches after a training step.

        The range widens at once and shrinks by a moving average, after Jacob et al., "Quantization
        and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        https://arxiv.org/abs/1712.05877. An average in both directions would be narrower the
        smaller the batches are.

        Args:
            seen: float32 tensor of shape (2,), how far the range reaches from 0 down and up:
                -minimum and maximum.
            batch: How far the batch reaches.
            limit: float32 scalar tensor, how far the range may widen.
        """
        change = batch - seen
        shrunk = ops.minimum(change, 0.0) * (1.0 - self.momentum)
        return seen + ops.maximum(shrunk, ops.minimum(change, limit))

    def weight_step(self, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the size of a step of weights, when a model is made or calibrated.

        Args:
            weights: float32 tensor with values, the weights as they are deployed.
            axis: The axes that share a step, or None for all.
            scheme: The scheme, for the number of steps.

        Returns:
            float32 tensor that broadcasts against the weights; by default the smallest step at
            which no weight is clipped.
        """
        return weight_grid(weights, axis, scheme).scale

    def moved_step(self, step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
        """Returns the size of a step of weights after a training step.

        Args:
            step: float32 tensor, the size before.
            weights: float32 tensor, the weights now. It may be symbolic.
            axis: As in `weight_step`.
            scheme: As in `weight_step`.

        Returns:
            float32 tensor; by default the same size.
        """
        del weights, axis, scheme
        return step

    def get_config(self) -> dict[str, Any]:
        """Returns the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RangeRule:
        """Makes the rule of a configuration."""
        return cls(**config)
