"""Symmetric, narrow-range quantization of weights."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_qat.backend import float64
from keras_qat.quantizers.delay import unless_delayed

# A channel of zeros gets this scale: its weights are 0 at any.
SMALLEST_SCALE = np.float32(1e-30)


def reciprocal(x):
    """Returns 1 / x, such that a product with it has the same bits under every compiler.

    TensorFlow's graph optimizer makes 1 / x an approximate operation, or turns `y * (1 / x)` into
    `y / x`; XLA does the latter the other way round. An error in the last bits of a double is
    gone in the float32, and the cast keeps the product a product.

    Args:
        x: float32 tensor, positive.

    Returns:
        float32 tensor.

    Example:
    >>> float(reciprocal(ops.array(4.0)))
    0.25
    """
    with float64():
        return ops.cast(1.0 / ops.cast(x, "float64"), "float32")


def weight_scale(weights, axis: int | tuple[int, ...] | None, high: int):
    """Returns the scale that maps the largest absolute weight to `high`.

    Args:
        weights: float32 tensor.
        axis: Axes to reduce over, all but the channels'; None for one scale per tensor.
        high: Largest integer, 127 for int8 with a narrow range.

    Returns:
        float32 tensor with the reduced axes kept at size 1, never 0.

    Example:
    >>> import numpy as np
    >>> float(weight_scale(np.array([[0.5], [-1.27]], "float32"), axis=0, high=127)[0, 0])
    0.009999999776482582
    """
    largest = ops.max(ops.abs(weights), axis=axis, keepdims=True)
    # The product, not the quotient: compilers would replace the division, some of the time.
    return ops.maximum(largest * np.float32(1.0 / high), SMALLEST_SCALE)


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
    return ops.clip(ops.round(weights * reciprocal(scale)), -high, high)


def fake_quantize_weights(weights, scale, high: int):
    """Rounds weights to the grid of their integers; the gradient passes straight through.

    Nothing is masked: a scale from `weight_scale` leaves no weight outside the range.

    Args:
        weights: float32 tensor.
        scale: float32 tensor that broadcasts against `weights`.
        high: Largest integer.

    Returns:
        float32 tensor of the shape of `weights`; `weights` while quantization is `delayed`.

    Example:
    >>> import numpy as np
    >>> w = np.array([0.26, -1.0], "float32")
    >>> [round(float(v), 4) for v in fake_quantize_weights(w, 0.1, 127)]
    [0.3, -1.0]
    """
    rounded = quantize_weights(weights, scale, high) * scale
    return unless_delayed(weights, weights + ops.stop_gradient(rounded - weights))
