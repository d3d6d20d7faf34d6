"""Fake quantization with straight-through gradients."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.quantizers.delay import unless_delayed


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
    offset = ops.cast(zero_point, "float32")
    lower = ops.stop_gradient((low - offset) * scale)
    upper = ops.stop_gradient((high - offset) * scale)
    # Keras's own function, because on TensorFlow it is one fused kernel in either direction.
    bits = (high - low).bit_length()
    y = keras.quantizers.fake_quant_with_min_max_vars(x, lower, upper, num_bits=bits)
    return unless_delayed(x, y)
