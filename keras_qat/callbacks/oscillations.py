"""Callbacks against weights that oscillate between two integers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import sync_variables
from keras_qat.callbacks.configured import ConfiguredCallback, check_between
from keras_qat.layers.kernels.weighted import WeightedLayer


@keras.saving.register_keras_serializable("keras_qat")
class DampenOscillations(ConfiguredCallback):
    """Pulls weights towards the middle of their integers, more and more in the course of training.

    A weight near the boundary of two integers changes from one to the other in most steps, and the
    statistics of batch normalizations follow neither. After each training step, each weight moves
    by a share of its distance from the value of its integer. The share rises from 0 to `strength`
    as a half cosine wave over all epochs of `fit`. This is gradient descent on the loss of Nagel et
    al., apart from the loss of the model, as weight decay is in AdamW. Clipped weights do not move.
    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
    https://arxiv.org/abs/2203.11086, section 3.1.

    Args:
        strength: The share of the last step, more than 0 and at most 1.

    Raises:
        InvalidTrainingError: If `strength` is something else.

    Example:
    >>> DampenOscillations().get_config()
    {'strength': 0.01}
    """

    def __init__(self, strength: float = 0.01):
        check_between("strength", strength, 0, 1)
        super().__init__(strength=strength)
        self.strength = strength
        self._steps = 0

    def on_train_begin(self, logs=None):
        """Starts to count training steps."""
        del logs
        self._steps = 0

    def on_train_batch_end(self, batch, logs=None):
        """Moves the weights."""
        del batch, logs
        sync_variables(self.model)
        self._steps += 1
        params = self.params or {}
        total = (params.get("epochs") or 1) * (params.get("steps") or 0)
        part = min(self._steps / total, 1.0) if total else 1.0
        share = self.strength * (1 - math.cos(math.pi * part)) / 2
        for layer in self.trained_kernels():
            weights, integers, step = _kernel_state(layer)
            is_inside = np.abs(weights - integers * step) <= np.abs(step) / 2
            moved = weights + share * (integers * step - weights)
            layer.kernel.assign(np.where(is_inside, moved, weights).astype("float32"))


@dataclasses.dataclass
class _History:
    """The integers of a kernel in the course of training.

    Attributes:
        integers: The integers after the last step.
        direction: The sign of the last change of each integer; 0 before the first one.
        frequency: The moving average of the oscillations of each weight.
        average: The moving average of the integers.
        is_frozen: Which weights are frozen.
    """

    integers: np.ndarray
    direction: np.ndarray
    frequency: np.ndarray
    average: np.ndarray
    is_frozen: np.ndarray

    @classmethod
    def of(cls, integers: np.ndarray) -> _History:
        """Returns the history of weights that have not changed yet."""
        zeros = np.zeros_like(integers)
        return cls(integers, zeros, zeros, integers, zeros.astype(bool))

    def observe(self, integers: np.ndarray, momentum: float, threshold: float) -> None:
        """Adds a step, and freezes weights that oscillate. Algorithm 1 of the paper."""
        integers = np.where(self.is_frozen, self.integers, integers)
        change = np.sign(integers - self.integers)
        oscillates = (change != 0) & (self.direction != 0) & (change != self.direction)
        self.frequency = momentum * oscillates + (1 - momentum) * self.frequency
        self.average = momentum * integers + (1 - momentum) * self.average
        self.direction = np.where(change != 0, change, self.direction)
        is_new = (self.frequency > threshold) & ~self.is_frozen
        self.integers = np.where(is_new, np.round(self.average), integers)
        self.is_frozen = self.is_frozen | is_new


@keras.saving.register_keras_serializable("keras_qat")
class FreezeOscillations(ConfiguredCallback):
    """Freezes weights that oscillate between two integers, at their most frequent integer.

    An oscillation is a change of a weight's integer in the direction opposite to its last change. A
    weight whose moving average of oscillations exceeds a threshold has its average integer from
    then on, until the end of `fit`.
    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
    https://arxiv.org/abs/2203.11086, algorithm 1.

    Args:
        threshold: The share of steps with an oscillation, more than 0 and at most 1.
        momentum: The weight of a step in the moving averages, more than 0 and at most 1.

    Attributes:
        frozen_share: The share of all weights that are frozen.

    Raises:
        InvalidTrainingError: If an argument is something else.

    Example:
    >>> FreezeOscillations(0.01).get_config()
    {'threshold': 0.01, 'momentum': 0.01}
    """

    def __init__(self, threshold: float = 0.02, momentum: float = 0.01):
        check_between("threshold", threshold, 0, 1)
        check_between("momentum", momentum, 0, 1)
        super().__init__(threshold=threshold, momentum=momentum)
        self.threshold, self.momentum = threshold, momentum
        self._histories: dict[str, _History] = {}

    def on_train_begin(self, logs=None):
        """Forgets the histories of an earlier training."""
        del logs
        self._histories = {}

    def on_train_batch_end(self, batch, logs=None):
        """Observes the integers of all kernels, and sets those that are frozen."""
        del batch, logs
        sync_variables(self.model)
        for layer in self.trained_kernels():
            weights, integers, step = _kernel_state(layer)
            own = self._histories.setdefault(layer.kernel.path, _History.of(integers))
            own.observe(integers, self.momentum, self.threshold)
            if own.is_frozen.any():
                held = np.where(own.is_frozen, own.integers * step, weights)
                layer.kernel.assign(held.astype("float32"))

    @property
    def frozen_share(self) -> float:
        """The share of all weights that are frozen."""
        frozen = [own.is_frozen.reshape(-1) for own in self._histories.values()]
        return float(np.concatenate(frozen).mean()) if frozen else 0.0


def _kernel_state(layer: WeightedLayer) -> tuple[Any, Any, Any]:
    """Returns the kernel, its integers, and the kernel of the integer 1, as arrays."""
    integers, step = map(ops.convert_to_numpy, layer.kernel_integers())
    return ops.convert_to_numpy(layer.kernel), integers.astype("float32"), step
