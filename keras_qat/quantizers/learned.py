"""Values of ranges that have a gradient: a reference times a trained factor."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_qat.backend import float64


def scaled(reference: Any, factor: Any, multiplier: float) -> Any:
    """Returns a reference times a factor that starts at 1 / `multiplier`.

    Args:
        reference: float32 tensor.
        factor: float32 tensor or variable of the same shape.
        multiplier: The multiplier of the learning rate.
    """
    # In float32 a graph of TensorFlow would multiply by the constant last, unlike eager code.
    with float64():
        share = ops.cast(ops.abs(ops.cast(factor, "float64")) * multiplier, "float32")
    return ops.convert_to_tensor(reference) * share


def with_gradient(value: Any, factor: Any, slope: Any) -> Any:
    """Returns a value whose gradient reaches the factor that it was computed with.

    Args:
        value: float32 tensor.
        factor: float32 variable.
        slope: float32 tensor, the gradient of the factor for a gradient of 1 of the value.

    Returns:
        `value`, with the same bits.
    """
    slope = ops.stop_gradient(slope * ops.sign(factor))
    return ops.stop_gradient(value) + slope * (factor - ops.stop_gradient(factor))


def gradient_scale(count: int, largest: int) -> float:
    """Returns the factor of the gradient of a step.

    Source: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153,
    section 2.2.

    Args:
        count: The number of values with that step.
        largest: The largest integer.

    Example:
    >>> gradient_scale(100, 4)
    0.05
    """
    return 1.0 / math.sqrt(count * largest)
