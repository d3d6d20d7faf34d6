"""AdaRound: chooses for each weight whether it is rounded up or down, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_qat.calibration.integer_kernels import folded_kernel, integer_kernel
from keras_qat.calibration.walking import Values
from keras_qat.layers.core.drop_in import assign_copy
from keras_qat.layers.kernels.weighted import WeightedLayer

# Positions of the output that the moments of the inputs are taken from.
_MOST_POSITIONS = 2**16
# Values of the patches that are in memory at a time: 16 MiB, for each of both models.
_MOST_VALUES = 2**22
_STEPS = 500
_FEWEST_STEPS = 100
# Multiplications of one layer, about a minute.
_MOST_PRODUCTS = 2e12
# The stretched sigmoid of the paper. Losses are relative to the mean square of the inputs.
_LOW, _HIGH = -0.1, 1.1
_REGULARIZER = 1.0
_LEARNING_RATE = 0.05
_WARM_UP = 0.2
_FIRST_POWER, _LAST_POWER = 20.0, 2.0
# Weights this close to an integer keep it.
_ON_GRID = 1e-3


class Moments(NamedTuple):
    """Second moments of the inputs of a layer, over all output positions of the data.

    Attributes:
        rounded: The products of the quantized model's inputs with each other, float64
            `(groups, products, products)`.
        mixed: The products of the quantized model's inputs with those in float, of the same shape.
    """

    rounded: np.ndarray
    mixed: np.ndarray


def round_adaptively(
    layer: WeightedLayer, real: Values, rounded: Values, *, is_centered: bool
) -> None:
    """Moves the weights of a layer to the integers that preserve its output best.

    Each weight is rounded up or down, such that the sums of the quantized model differ least from
    those of the float model, in the mean square over data. It is the method of "Up or Down?
    Adaptive Rounding for Post-Training Quantization" (Nagel et al. 2020,
    https://arxiv.org/abs/2004.10568): a rectified sigmoid for each weight, whose regularizer is
    annealed until each is 0 or 1. The loss, before the activation, is a quadratic function of the
    weights. Its coefficients are moments of the inputs, computed once.

    The weights in float get the values of the chosen integers. The rounding of inference and of
    files gives the same integers, also after saving and loading. A channel that would not gain
    keeps its weights.

    Args:
        layer: A layer of a quantized model with ranges.
        real: The inputs of the layer in float, an array for each batch.
        rounded: The inputs of the layer in the quantized model.
        is_centered: Whether the mean error does not count, because the bias will be corrected.
    """
    if not any(layer.kernel is variable for variable in layer.variables):
        return
    folded, (nearest, scale) = folded_kernel(layer), integer_kernel(layer)
    operator = layer.kernel_operator
    targets, start = (operator.to_matrices(layer, each) for each in (folded / scale, nearest))
    moments = _moments(layer, real, rounded, is_centered)
    limits = nearest.min(), nearest.max()
    chosen = choose_integers(targets, start, moments, limits)
    if not np.array_equal(chosen, start):
        _move_to(layer, folded, operator.from_matrices(layer, chosen), scale)


def choose_integers(
    targets: np.ndarray, nearest: np.ndarray, moments: Moments, limits: tuple[float, float]
) -> np.ndarray:
    """Returns the integers that preserve the sums best.

    Args:
        targets: The weights in float, in steps, `(groups, products, outputs)`.
        nearest: The nearest integers within the limits of the type, of the same shape.
        moments: The moments of the inputs.
        limits: The smallest and the largest integer. Weights at a limit stay there, because they
            define the scale.

    Returns:
        An integer above or below each target, as float32. For each output it is at least as good as
        `nearest`.

    Example:
    >>> targets, nearest = np.full((1, 2, 1), 0.4, "float32"), np.zeros((1, 2, 1), "float32")
    >>> sums = Moments(np.ones((1, 2, 2)), np.ones((1, 2, 2)))
    >>> float(choose_integers(targets, nearest, sums, (-7, 7)).sum())
    1.0
    """
    below = np.floor(targets)
    fraction = (targets - below).astype("float32")
    is_fixed = np.abs(targets - nearest) < _ON_GRID
    is_fixed |= (nearest <= limits[0]) | (nearest >= limits[1])
    size = np.maximum(np.einsum("gkk->g", moments.rounded) / moments.rounded.shape[1], 1e-30)
    rounded = (moments.rounded / size[:, None, None]).astype("float32")
    wanted = moments.mixed / size[:, None, None] @ targets
    start = np.where(is_fixed, nearest, below).astype("float32")
    share = _relaxed(rounded, (wanted - rounded @ start).astype("float32"), fraction, is_fixed)
    ends = (share >= 0.5, nearest > start)
    first, second = (start + _polished(end, start, rounded, wanted, is_fixed) for end in ends)
    is_better = _losses(first, rounded, wanted) < _losses(second, rounded, wanted)
    return np.where(is_better, first, second).astype("float32")


def _polished(
    ups: np.ndarray,
    start: np.ndarray,
    rounded: np.ndarray,
    wanted: np.ndarray,
    is_fixed: np.ndarray,
) -> np.ndarray:
    """Flips the rounding of single weights for as long as that lowers the loss.

    Args:
        ups: Whether each weight is rounded up.
        start: The integers of the weights that are rounded down.
        rounded: The moments, relative to their mean.
        wanted: The products of the mixed moments with the targets.
        is_fixed: The weights that keep their integer.

    Returns:
        The better choice of `ups`, in each output.
    """
    ups, group, output = ups.copy(), np.arange(ups.shape[0])[:, None], np.arange(ups.shape[2])
    slope = 2 * (rounded @ (start + ups) - wanted)
    curvature = np.einsum("gkk->gk", rounded)[:, :, None]
    for _ in range(ups.shape[1]):
        turns = np.where(ups, -1.0, 1.0)
        gains = np.where(is_fixed, 0.0, -(turns * slope + curvature))
        best = gains.argmax(axis=1)[:, None]
        is_gain = np.take_along_axis(gains, best, axis=1) > 1e-6
        if not is_gain.any():
            break
        turn = np.take_along_axis(turns, best, axis=1) * is_gain
        ups[group, best[:, 0], output] ^= is_gain[:, 0]
        slope += 2 * turn * rounded[group, best[:, 0]].swapaxes(1, 2)
    return ups


def _relaxed(
    rounded: np.ndarray, wanted: np.ndarray, fraction: np.ndarray, is_fixed: np.ndarray
) -> np.ndarray:
    """Returns the shares of a step, 0 or 1, by which weights are rounded up."""
    stretch = _HIGH - _LOW
    logits = -np.log(stretch / (np.clip(fraction, 0.01, 0.99) - _LOW) - 1)
    mean, square = np.zeros_like(logits), np.zeros_like(logits)
    steps = _steps(fraction.shape)
    share = fraction
    for step in range(steps):
        sigmoid = 1 / (1 + np.exp(-logits))
        share = np.clip(sigmoid * stretch + _LOW, 0, 1)
        share[is_fixed] = 0
        slope = 2 * (rounded @ share - wanted) + _pull(share, step / steps)
        slope *= stretch * sigmoid * (1 - sigmoid)
        slope[is_fixed | (share <= 0) | (share >= 1)] = 0
        mean += 0.1 * (slope - mean)
        square += 0.001 * (slope * slope - square)
        unbiased = mean / (1 - 0.9 ** (step + 1))
        deviation = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8
        logits -= _LEARNING_RATE * unbiased / deviation
    return share


def _steps(shape: tuple[int, ...]) -> int:
    """Returns the number of steps: fewer for layers with very many weights."""
    groups, products, outputs = shape
    most = _MOST_PRODUCTS / (groups * products**2 * outputs)
    return int(np.clip(most, _FEWEST_STEPS, _STEPS))


def _pull(share: np.ndarray, progress: float) -> np.ndarray | float:
    """Returns the gradient of the regularizer, which pulls shares to 0 or 1."""
    if progress < _WARM_UP:
        return 0.0
    cosine = (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2
    power = _LAST_POWER + (_FIRST_POWER - _LAST_POWER) * cosine
    distance = 2 * share - 1
    return -2 * _REGULARIZER * power * np.sign(distance) * np.abs(distance) ** (power - 1)


def _losses(integers: np.ndarray, rounded: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the loss of each output, up to a constant, `(groups, 1, outputs)`."""
    return (integers * (rounded @ integers - 2 * wanted)).sum(axis=1, keepdims=True)


def _moments(layer: WeightedLayer, real: Values, rounded: Values, is_centered: bool) -> Moments:
    """Computes the moments of the inputs of a layer."""
    found, count = None, 0
    means = [0.0, 0.0]
    for x, x_rounded in _sampled(layer, real, rounded):
        pair = [patches(layer, each) for each in (x, x_rounded)]
        count += pair[0].shape[1]
        turned = pair[1].swapaxes(1, 2)
        products = [turned @ each for each in pair]
        found = products if found is None else list(map(np.add, found, products))
        means = [m + each.sum(axis=1, dtype="float64") for m, each in zip(means, pair, strict=True)]
    mixed, own = (np.asarray(each, "float64") / count for each in found or ())
    if is_centered:
        of_real, of_rounded = (np.asarray(each) / count for each in means)
        mixed -= of_rounded[:, :, None] * of_real[:, None]
        own -= of_rounded[:, :, None] * of_rounded[:, None]
    return Moments(own, mixed)


def _sampled(
    layer: WeightedLayer, real: Values, rounded: Values
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the first samples of each batch, so many that the positions are not too many.

    They come in parts whose patches fit in memory.
    """
    positions = math.prod(layer.output.shape[1:-1])
    count = max(_MOST_POSITIONS // positions // len(real), 1)
    kernel = ops.convert_to_numpy(layer.kernel)
    groups, products, _ = layer.kernel_operator.to_matrices(layer, kernel).shape
    part = max(_MOST_VALUES // (positions * groups * products), 1)
    for pair in zip(real, rounded, strict=True):
        for start in range(0, min(count, len(pair[0])), part):
            end = min(start + part, count)
            yield pair[0][start:end], pair[1][start:end]


def patches(layer: WeightedLayer, x: np.ndarray) -> np.ndarray:
    """Returns the values that each output sums, float32 `(groups, positions, products)`.

    The layer itself finds them, with a kernel that selects each value once.

    Args:
        layer: A built layer.
        x: Its input.
    """
    operator = layer.kernel_operator
    shape = operator.to_matrices(layer, ops.convert_to_numpy(layer.kernel)).shape
    selecting = np.broadcast_to(np.eye(shape[1], dtype="float32"), (shape[0], shape[1], shape[1]))
    kernel = operator.from_matrices(layer, selecting)
    y = ops.convert_to_numpy(operator.apply(layer, ops.convert_to_tensor(x), kernel))
    return y.reshape(-1, shape[0], shape[1]).swapaxes(0, 1)


def _move_to(
    layer: WeightedLayer, folded: np.ndarray, chosen: np.ndarray, scale: np.ndarray
) -> None:
    """Moves the variable so that the folded kernel has the values of integers."""
    kernel = ops.convert_to_numpy(layer.kernel)
    moved = np.divide(chosen * scale, folded, out=np.ones_like(folded), where=folded != 0)
    assign_copy(layer.kernel, (kernel * moved).astype("float32"))
    if not np.array_equal(integer_kernel(layer)[0], chosen):
        assign_copy(layer.kernel, kernel)
