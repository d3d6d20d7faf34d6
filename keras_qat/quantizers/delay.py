"""A delay of fake quantization, so that training begins in float."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidDelayError

_IS_DELAYED: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "keras_qat_is_delayed", default=None
)


def checked_steps(steps: Any) -> int:
    """Returns a number of training steps.

    Args:
        steps: The number of steps.

    Raises:
        InvalidDelayError: If it is not a whole number from 0 to 2**31 - 1.

    Example:
    >>> checked_steps(np.int64(1000))
    1000
    """
    is_whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if not is_whole or not 0 <= steps < 2**31:
        raise InvalidDelayError(
            "Quantization cannot start after that.",
            received=f"quant_delay={steps!r}",
            expected="a whole number of training steps, 0 <= quant_delay < 2**31",
            fix="Give the number of batches to train in float; 0 is no delay.",
        )
    return int(steps)


@keras.saving.register_keras_serializable("keras_qat")
class QuantDelay(keras.layers.Layer):
    """Counts the training steps of a model down until its quantization starts.

    As in `create_training_graph(quant_delay=...)` of TensorFlow 1, weights train in float first,
    while ranges are observed. The count is a variable. It is saved with the weights, so an
    interrupted training continues where it stopped.

    Args:
        steps: The number of training steps in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        left: int32 scalar variable, the number of remaining steps.

    Raises:
        InvalidDelayError: If `steps` is not a whole number of steps.

    Example:
    >>> delay = QuantDelay(1)
    >>> delay.build()
    >>> bool(delay.count_down()), bool(delay.count_down()), int(delay.left)
    (True, False, 0)
    """

    def __init__(self, steps: int, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.steps = checked_steps(steps)

    def build(self, input_shape=None):
        """Creates the counter."""
        del input_shape
        self.left = self.add_weight(
            name="left",
            shape=(),
            dtype="int32",
            initializer=keras.initializers.Constant(self.steps),
            trainable=False,
            aggregation="only_first_replica",
        )

    def count_down(self):
        """Decrements the remaining steps, inside a training step.

        Returns:
            bool scalar tensor: whether this step is one of the delay.
        """
        is_delayed = ops.greater(self.left, 0)
        self.left.assign(ops.maximum(self.left - 1, 0))
        return is_delayed

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "steps": self.steps}


@contextlib.contextmanager
def delayed(is_delayed: Any) -> Iterator[None]:
    """Makes fake quantization return its input while a condition holds.

    The condition is a tensor: a compiled training step changes from float to quantized without
    another compilation. Ranges are observed in both cases.

    Args:
        is_delayed: bool scalar tensor. None for quantization without a condition, which has no
            cost.

    Returns:
        A context manager.

    Example:
    >>> with delayed(ops.convert_to_tensor(True)):
    ...     print(float(unless_delayed(ops.array(0.26), ops.array(0.3))))
    0.25999999046325684
    """
    token = _IS_DELAYED.set(is_delayed)
    try:
        yield
    finally:
        _IS_DELAYED.reset(token)


def unless_delayed(exact, quantized):
    """Returns the quantized tensor, or the exact one while quantization is delayed.

    Args:
        exact: Tensor of the float model.
        quantized: Quantized tensor of the same shape and dtype.

    Returns:
        `quantized` if there is no delay, else the tensor that applies now.

    Example:
    >>> float(unless_delayed(0.26, 0.3))
    0.3
    """
    is_delayed = _IS_DELAYED.get()
    return quantized if is_delayed is None else ops.where(is_delayed, exact, quantized)
