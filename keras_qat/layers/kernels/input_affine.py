"""A constant factor and offset for each input channel, as part of a layer with a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import float64
from keras_qat.graph import Matcher


class InputAffine(keras.Operation):
    """The operation `x * factor + offset` before a layer with a kernel, and in that layer.

    The layer computes from `x` itself: its kernel and bias absorb the factor and the offset.

    The variable of the kernel does not change, and neither do its gradients. With the factor
    1 / 255 in the kernel, the same learning rate would be 65,000 times larger.

    Args:
        factor: One number for each channel of the input.
        offset: One number for each channel of the input.
        name: Name of the Keras layer that was converted.

    Example:
    >>> affine = InputAffine([2.0, 3.0], [0.0, 1.0], "rescaling")
    >>> affine.scaled(np.ones((2, 1), "float32")).numpy().tolist()
    [[2.0], [3.0]]
    """

    def __init__(self, factor: Sequence[float], offset: Sequence[float], name: str):
        super().__init__(name=name)
        self.factor = np.asarray(factor, "float32")
        self.offset = np.asarray(offset, "float32")

    def call(self, x):
        """Computes the operation itself."""
        return x * self.factor + self.offset

    def compute_output_spec(self, x):
        """Returns a tensor of the shape and dtype of the input."""
        return keras.KerasTensor(x.shape, x.dtype)

    @property
    def has_offset(self) -> bool:
        """Whether the offset is not zero."""
        return bool(np.any(self.offset))

    def scaled(self, kernel):
        """Returns the kernel to apply to `x`.

        Args:
            kernel: float32 tensor `(*window, in, out)`, or `(*window, in, multiplier)`.
        """
        # Float64 makes the product exact. In float32 TensorFlow would multiply a single factor with
        # the scale of a folded batch normalization first, in a graph but not in eager mode.
        with float64():
            scaled = ops.cast(kernel, "float64") * ops.cast(self.factor[:, None], "float64")
            return ops.cast(scaled, "float32")

    def shift(self, kernel, axes: tuple[int, ...]):
        """Returns the contribution of the offset to each output channel.

        Args:
            kernel: As for `scaled`.
            axes: The dimensions of the kernel over which one output channel is summed.

        Returns:
            float32 tensor `(channels,)`. The sum is computed in float64, so that it does not depend
            on a compiler's order of summing.
        """
        with float64():
            added = ops.cast(kernel, "float64") * ops.cast(self.offset[:, None], "float64")
            return ops.cast(ops.reshape(ops.sum(added, axis=axes), (-1,)), "float32")

    def to_keras(self) -> keras.layers.Layer:
        """Returns the Keras layer that was converted, or one like it."""
        return keras.layers.Rescaling(
            self.factor.tolist(), self.offset.tolist(), name=self.name, dtype="float32"
        )

    def config(self) -> dict:
        """Returns the constructor's arguments."""
        factor, offset = self.factor.tolist(), self.offset.tolist()
        return {"factor": factor, "offset": offset, "name": self.name}


INPUT_AFFINE = Matcher("a constant factor and offset", lambda each: type(each) is InputAffine)


def without_affine(operations: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a chain of operations without the `InputAffine` that it may begin with."""
    return operations[1:] if INPUT_AFFINE(operations[0]) else operations
