"""Steps of weights, and ranges of activations, with the least squared error of quantization."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.quantizers.histograms import filled_bins
from keras_qat.quantizers.weights import Axes, quantize_weights, weight_grid
from keras_qat.scheme import Scheme

# Steps are searched from those that cover all weights down to 1/16 of them, eight to an octave.
_SEARCHED = 2.0 ** (-np.arange(33) / 8)
# Refinements of the best one found. More changed the error of normal weights by less than 0.1 %.
_REFINEMENTS = 3


def least_error_step(weights: Any, axis: Axes, scheme: Scheme) -> Any:
    """Searches the size of a step with the least squared error of the weights.

    Args:
        weights: float32 tensor with values.
        axis: The axes that share a step, or None for all.
        scheme: The scheme, for the number of steps.

    Returns:
        float32 tensor that broadcasts against the weights.

    Example:
    >>> from keras_qat.scheme import SCHEMES, Scheme
    >>> w = ops.array([[-1.0, -0.9, 0.9, 1.0, 1.1, 2.0]])
    >>> ternary = Scheme("ternary", weight_bits=2)
    >>> round(float(least_error_step(w, 1, ternary)[0, 0]), 3)
    1.15
    """
    covering = weight_grid(weights, axis, scheme).scale
    best, least = covering, ops.full_like(covering, np.inf)
    for share in _SEARCHED:
        step = covering * np.float32(share)
        error = _error(weights, axis, scheme, step)
        best, least = ops.where(error < least, step, best), ops.minimum(error, least)
    for _ in range(_REFINEMENTS):
        step = refined_step(best, weights, axis, scheme)
        error = _error(weights, axis, scheme, step)
        best, least = ops.where(error < least, step, best), ops.minimum(error, least)
    return best


def refined_step(step: Any, weights: Any, axis: Axes, scheme: Scheme) -> Any:
    """Returns the size of a step with the least squared error for the integers of a given one.

    The integers `q` of weights `w` at a step of any size are best with the step `(q w) / (q q)`.
    Steps that follow weights in this way cost two sums for each training step.

    Args:
        step: float32 tensor, the given size.
        weights: float32 tensor.
        axis: The axes that share a step, or None for all.
        scheme: The scheme.

    Returns:
        float32 tensor of the shape of `step`.
    """
    grid = weight_grid(weights, axis, scheme, step=step)
    integers = quantize_weights(weights, grid)
    products = ops.sum(integers * weights, axis=axis, keepdims=True)
    squares = ops.sum(ops.square(integers), axis=axis, keepdims=True)
    fitted = products / ops.maximum(squares, np.float32(1.0))
    return ops.where(fitted > 0, fitted, grid.scale)


def _error(weights: Any, axis: Axes, scheme: Scheme, step: Any) -> Any:
    """Returns the squared error of weights at a size of a step."""
    grid = weight_grid(weights, axis, scheme, step=step)
    differences = quantize_weights(weights, grid) * grid.scale - weights
    return ops.sum(ops.square(differences), axis=axis, keepdims=True)


def least_error_range(
    counts: np.ndarray, least: float, most: float, steps: int
) -> tuple[float, float]:
    """Searches the range of an activation with the least squared error.

    Args:
        counts: The counted values, see `histograms.count_values`.
        least: The smallest value.
        most: The largest value.
        steps: The number of steps of the range.

    Returns:
        The minimum and the maximum. Each is a part of the extreme, or 0 if the extreme is beyond 0.

    Example:
    >>> from keras_qat.quantizers.histograms import count_values
    >>> counts = np.asarray(count_values(np.append(np.linspace(0, 1, 5000), 2.0)))
    >>> low, high = least_error_range(counts, 0.0, 2.0, 15)
    >>> low, round(high, 1)
    (0.0, 1.0)
    """
    bins, ends = filled_bins(counts), np.array([min(least, 0.0), max(most, 0.0)])
    if not np.ptp(ends) > 0:
        return float(ends[0]), float(ends[1])
    shares = 2.0 ** (-np.arange(81) / 16)
    for end in (1, 0, 1, 0):
        searched = np.repeat(ends[None], len(shares), axis=0)
        searched[:, end] *= shares
        errors = [_range_error(bins, low, high, steps) for low, high in searched]
        ends = searched[int(np.argmin(errors))]
    return float(ends[0]), float(ends[1])


def _range_error(bins: Any, low: float, high: float, steps: int) -> float:
    """Returns the squared error of counted values on the grid of a range."""
    middles, widths, numbers = bins
    step = (high - low) / steps
    if not step > 0:
        return np.inf
    inside = np.clip(middles, low, high)
    # Values in a bin that is wider than a step are spread over all distances from the grid.
    rounded = np.where(
        widths > step, step**2 / 12, np.square(inside - np.round(inside / step) * step)
    )
    return float(np.sum(numbers * (np.square(middles - inside) + rounded)))
