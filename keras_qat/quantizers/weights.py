"""Symmetric, narrow-range quantization of weights."""

from __future__ import annotations

import numpy as np
from keras import ops

# Below this a channel's largest weight counts as zero: its scale would not be a normal float32.
SMALLEST_WEIGHT = np.float32(1e-30)


def weight_scale(weights, axis: int | tuple[int, ...] | None, high: int):
    """Returns the scale that maps the largest absolute weight to `high`.

    Args:
        weights: float32 tensor.
        axis: Axes to reduce over, all but the channels'; None for one scale per tensor.
        high: Largest integer, 127 for int8 with a narrow range.

    Returns:
        float32 tensor with the reduced axes kept at size 1. A channel of zeros gets the scale
        of a tiny weight, never 0.

    Example:

    >>> import numpy as np
    >>> float(weight_scale(np.array([[0.5], [-1.27]], "float32"), axis=0, high=127)[0, 0])
    0.009999999776482582
    """
    largest = ops.max(ops.abs(weights), axis=axis, keepdims=True)
    # The product, not the quotient: compilers would replace the division, some of the time.
    return ops.maximum(largest, SMALLEST_WEIGHT) * np.float32(1.0 / high)


def quantize_weights(weights, scale, high: int):
    """Rounds weights to integers in [-high, high].

    Args:
        weights: float32 tensor.
        scale: float32 tensor that broadcasts against `weights`.
        high: Largest integer.

    Returns:
        float32 tensor of whole numbers.

    Example:

    >>> import numpy as np
    >>> [float(q) for q in quantize_weights(np.array([0.26, -9.0], "float32"), 0.1, 127)]
    [3.0, -90.0]
    """
    return ops.clip(ops.round(weights * (1.0 / scale)), -high, high)


def fake_quantize_weights(weights, scale, high: int):
    """Rounds weights to the grid of their integers; the gradient passes straight through.

    Nothing is masked: a scale from `weight_scale` leaves no weight outside the range.

    Args:
        weights: float32 tensor.
        scale: float32 tensor that broadcasts against `weights`.
        high: Largest integer.

    Returns:
        float32 tensor of the shape of `weights`.

    Example:

    >>> import numpy as np
    >>> w = np.array([0.26, -1.0], "float32")
    >>> [round(float(v), 4) for v in fake_quantize_weights(w, 0.1, 127)]
    [0.3, -1.0]
    """
    rounded = quantize_weights(weights, scale, high) * scale
    return weights + ops.stop_gradient(rounded - weights)
