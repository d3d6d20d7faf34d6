"""The divergence of softened probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

# Half a step of a quantized softmax: an integer of 0 stands for probabilities up to it.
_LEAST = np.float32(1 / 512)


def soft_divergence(teacher: Any, student: Any, *, temperature: float, from_logits: bool) -> Any:
    """Returns the Kullback-Leibler divergence of softened probabilities, for each sample.

    It is multiplied by the square of the temperature, so that gradients keep their size.
    Source: Hinton et al., https://arxiv.org/abs/1503.02531, section 2.1.

    Args:
        teacher: float32 tensor (..., classes), the outputs of the teacher.
        student: float32 tensor of the same shape, the outputs of the student.
        temperature: The number that logits are divided by.
        from_logits: Whether the outputs are logits. Probabilities below 1/512 count as 1/512: the
            steps of a quantized softmax are 1/256.

    Returns:
        float32 tensor of the shape without the classes.

    Example:
    >>> a, b = ops.array([[0.5, 0.5]]), ops.array([[0.75, 0.25]])
    >>> round(float(soft_divergence(a, b, temperature=1.0, from_logits=False)[0]), 4)
    0.1438
    """
    logs = [
        ops.log_softmax((x if from_logits else ops.log(ops.maximum(x, _LEAST))) / temperature)
        for x in (teacher, student)
    ]
    divergence = ops.sum(ops.exp(logs[0]) * (logs[0] - logs[1]), axis=-1)
    return divergence * temperature**2


def mean_of_samples(values: Any, weights: Any) -> Any:
    """Returns the mean of a loss over samples.

    Args:
        values: float32 tensor (samples, ...).
        weights: float32 tensor (samples,), the weights of the samples; None for equal weights.
    """
    values = ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)
    return ops.mean(values if weights is None else values * weights)
