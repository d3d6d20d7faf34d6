"""The activations that LiteRT's operators fuse: limits in integers, functions in float."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.layers.core.activation_names import FUSED_CODES
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme

# Far beyond 8 bits, and well inside 32 bits.
_MOST_STEPS = 1e6


def apply_activation(name: str, x):
    """Applies a fused activation in float.

    Args:
        name: `"linear"`, `"relu"` or `"relu6"`.
        x: float32 tensor.

    Returns:
        float32 tensor.
    """
    return keras.activations.get(name)(x)


def fused_code(name: str, output: Grid | None) -> str:
    """Returns LiteRT's name of a fused activation.

    Args:
        name: `"linear"`, `"relu"` or `"relu6"`.
        output: The grid of the output; None in float.

    Returns:
        `"NONE"`, `"RELU"` or `"RELU6"`; `"RELU"` for a ReLU6 whose 6 is out of reach, because
        LiteRT refuses a ReLU6 of more than 2**31 steps.

    Example:
    >>> fused_code("relu6", Grid(np.float32(0.1), np.int32(0)))
    'RELU6'
    """
    is_reached = output is None or 6.0 / float(ops.convert_to_numpy(output.scale)) < _MOST_STEPS
    return FUSED_CODES["relu" if name == "relu6" and not is_reached else name]


def sum_options(name: str, output: Grid | None) -> dict[str, Any]:
    """Returns the options of an ADD, SUB or MUL. Scales of int16 need not be powers of two.

    Args:
        name: `"linear"`, `"relu"` or `"relu6"`.
        output: The grid of the output; None in float.

    Example:
    >>> sum_options("relu", None)
    {'fusedActivationFunction': 'RELU', 'potScaleInt16': False}
    """
    return {"fusedActivationFunction": fused_code(name, output), "potScaleInt16": False}


def activation_limits(name: str, scale, zero_point, scheme: Scheme):
    """Returns the smallest and largest integer of the output of a fused activation.

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
        steps = ops.minimum(np.float32(6.0) / scale, np.float32(_MOST_STEPS))
        whole = ops.floor(steps)
        half_up = ops.cast(whole, "int32") + ops.cast(steps - whole >= 0.5, "int32")
        high = ops.minimum(high, zero_point + half_up)
    return low, high
