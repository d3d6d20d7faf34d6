"""Quantization parameters of a group of tensors that share them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_qat.quantizers.observers import RangeObserver
from keras_qat.quantizers.weights import reciprocal
from keras_qat.scheme import Scheme


@dataclasses.dataclass(frozen=True, eq=False)
class FixedParameters:
    """Parameters that the kernel prescribes, such as 1/256 and -128 for SOFTMAX.

    Attributes:
        scale_value: Real size of one step.
        zero_point_value: Integer that stands for 0.0.
    """

    scale_value: float
    zero_point_value: int

    @property
    def calibrated(self) -> bool:
        """Always true: nothing has to be observed."""
        return True

    @property
    def scale(self):
        """float32 scalar tensor."""
        return ops.convert_to_tensor(np.float32(self.scale_value))

    @property
    def zero_point(self):
        """int32 scalar tensor."""
        return ops.convert_to_tensor(np.int32(self.zero_point_value))

    def calibrated_now(self):
        """Returns a boolean scalar tensor: always true."""
        return ops.convert_to_tensor(True)


@dataclasses.dataclass(frozen=True, eq=False)
class RangeParameters:
    """Parameters that cover the union of the ranges of one or more observers.

    The range always contains 0, which is exactly representable (zero padding and ReLU need
    it). A range of width zero, that of a tensor that is always 0, gets scale 1.

    Attributes:
        scheme: Gives the integer limits.
        observers: One for each tensor of the group that is computed, not moved or selected.
        names: Names of those tensors, for messages.
    """

    scheme: Scheme
    observers: Sequence[RangeObserver]
    names: Sequence[str] = ()

    @property
    def calibrated(self) -> bool:
        """Whether every observer has seen data. Reads variables: not for use in a graph."""
        return all(int(observer.updates) > 0 for observer in self.observers)

    def calibrated_now(self):
        """Returns a boolean scalar tensor: whether every observer has seen data."""
        seen = [ops.greater(observer.updates, 0) for observer in self.observers]
        return ops.all(ops.stack(seen))

    def _limits(self):
        low = high = ops.convert_to_tensor(np.float32(0.0))
        for observer in self.observers:
            low = ops.minimum(low, observer.minimum)
            high = ops.maximum(high, observer.maximum)
        return low, high

    @property
    def scale(self):
        """float32 scalar tensor, the real size of one step."""
        low, high = self._limits()
        steps = self.scheme.activation_high - self.scheme.activation_low
        # Compilers turn a division by a constant into this product, so write the product.
        scale = (high - low) * np.float32(1.0 / steps)
        return ops.where(scale < np.float32(1e-30), np.float32(1.0), scale)

    @property
    def zero_point(self):
        """int32 scalar tensor, the integer that stands for 0.0."""
        low, _ = self._limits()
        steps = ops.cast(ops.round(low * reciprocal(self.scale)), "int32")
        return self.scheme.activation_low - steps
