"""The activations that LiteRT's operators fuse: limits in integers, functions in float."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.scheme import Scheme


def apply_activation(name: str, x):
    """Applies a fused activation in float.

    Args:
        name: `"linear"`, `"relu"` or `"relu6"`.
        x: float32 tensor.

    Returns:
        float32 tensor.
    """
    return keras.activations.get(name)(x)


def activation_limits(name: str, scale, zero_point, scheme: Scheme):
    """Returns the smallest and largest integer that a fused activation lets through.

    The rule of `CalculateActivationRangeQuantized` in TensorFlow Lite's `kernel_util.cc`.

    Args:
        name: `"linear"`, `"relu"` or `"relu6"`.
        scale: float32 scalar tensor, scale of the output.
        zero_point: int32 scalar tensor, zero point of the output.
        scheme: The scheme.

    Returns:
        Two int32 scalar tensors.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> low, high = activation_limits("relu6", np.float32(0.1), np.int32(-128), get_scheme("int8"))
    >>> int(low), int(high)
    (-128, -68)
    """
    low = ops.convert_to_tensor(np.int32(scheme.activation_low))
    high = ops.convert_to_tensor(np.int32(scheme.activation_high))
    if name in ("relu", "relu6"):
        low = ops.maximum(low, zero_point)
    if name == "relu6":
        steps = ops.minimum(np.float32(6.0) / scale, np.float32(1e6))
        whole = ops.floor(steps)
        half_up = ops.cast(whole, "int32") + ops.cast(steps - whole >= 0.5, "int32")
        high = ops.minimum(high, zero_point + half_up)
    return low, high
