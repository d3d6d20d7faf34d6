"""Fake quantization with straight-through gradients."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.backend import traced_once
from keras_qat.quantizers.delay import unless_delayed
from keras_qat.quantizers.fixed_parameters import Grid


def fake_quantize(x, scale, zero_point, low: int, high: int):
    """Rounds values to the grid of a quantized tensor; the gradient passes straight through.

    The gradient is 1 where `x` lies inside the representable range (bounds included) and 0
    outside (Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation", https://arxiv.org/abs/1308.3432).

    Args:
        x: float32 tensor.
        scale: float32 scalar tensor, the real size of a step.
        zero_point: int32 scalar tensor.
        low: Smallest integer.
        high: Largest integer.

    Returns:
        float32 tensor of the shape of `x`, each value `(q - zero_point) * scale`; `x` while
        quantization is `delayed`.

    Example:
    >>> import numpy as np
    >>> x = np.array([0.26, 99.0], "float32")
    >>> [round(float(v), 4) for v in fake_quantize(x, 0.1, 0, -128, 127)]
    [0.3, 12.7]
    """
    lower, upper = map(ops.stop_gradient, _ends(scale, zero_point, limits=(low, high)))
    # Keras's own function, because on TensorFlow it is one fused kernel in either direction.
    bits = (high - low).bit_length()
    y = keras.quantizers.fake_quant_with_min_max_vars(x, lower, upper, num_bits=bits)
    return unless_delayed(x, y)


@traced_once
def _ends(scale, zero_point, *, limits):
    """Returns the real values of the smallest and the largest integer."""
    lower, upper = ((limit - ops.cast(zero_point, "float32")) * scale for limit in limits)
    return lower, upper


def with_range_gradient(x, y, grid: Grid, limits: tuple[int, int], ends):
    """Adds the gradient of a learned range to a fake-quantized tensor.

    A value inside the range has the gradient of its rounding, `(y - x) / scale` for the scale. As
    the scale is the distance of both ends divided by the steps, the ends share it. A clipped value
    moves with the end that clips it.
    Sources: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153,
    equation 3; Bhalgat et al., "LSQ+", https://arxiv.org/abs/2004.09576, equations 6 and 7.

    Args:
        x: float32 tensor, the values before.
        y: float32 tensor, the values after `fake_quantize`.
        grid: The grid.
        limits: The smallest and the largest integer.
        ends: The minimum and the maximum, float32 scalar tensors with a gradient.

    Returns:
        `y`, with the same bits.
    """
    low, high = ends
    before, scale = ops.stop_gradient(x), ops.stop_gradient(grid.scale)
    bounds = [(ops.cast(limit - grid.zero_point, "float32")) * scale for limit in limits]
    is_below = ops.cast(before < bounds[0], "float32")
    is_above = ops.cast(before > bounds[1], "float32")
    width = scale * float(limits[1] - limits[0])
    inside = (1.0 - is_below - is_above) * (ops.stop_gradient(y) - before) / width
    moved = y + (high - ops.stop_gradient(high)) * (is_above + inside)
    return unless_delayed(y, moved + (low - ops.stop_gradient(low)) * (is_below - inside))
