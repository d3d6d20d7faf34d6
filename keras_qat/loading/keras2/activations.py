"""Functions that Keras 3 computes differently from Keras 2 under the same name."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_qat")
def hard_sigmoid(x):
    """Keras 2's piecewise linear sigmoid, `clip(x / 5 + 1 / 2, 0, 1)`; Keras 3's has slope 1 / 6.

    Args:
        x: Tensor of any shape.

    Returns:
        Tensor of the same shape.

    Example:
    >>> [round(float(y), 6) for y in hard_sigmoid(ops.array([-3.0, 1.0, 2.5]))]
    [0.0, 0.7, 1.0]
    """
    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


def thresholded_relu(x, theta: float = 1.0):
    """Keras 2's `ThresholdedReLU`, which Keras 3 has no layer for: x above theta, 0 elsewhere.

    Args:
        x: Tensor of any shape.
        theta: The threshold.

    Returns:
        Tensor of the same shape.

    Example:
    >>> [float(y) for y in thresholded_relu(ops.array([0.5, 1.0, 1.5]))]
    [0.0, 0.0, 1.5]
    """
    return x * ops.cast(x > theta, x.dtype)


# Names in the file to functions. Other names have the same meaning in Keras 3.
CHANGED = {"hard_sigmoid": hard_sigmoid}
