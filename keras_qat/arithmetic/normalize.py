"""Division of integers by their standard deviation, root mean square or norm."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32, round_half_away
from keras_qat.arithmetic.requantize import rescale
from keras_qat.backend import compiled, float64

Rule = Callable[..., Any]

LARGEST_GROUP = 2**20
STEPS = 255  # between the smallest and the largest integer of 8 bits
LEAST_DEVIATION = 1.5  # lower bound of the deviation, in steps of the input
_LARGEST_PART = 2**15  # number of squared differences of 8-bit integers whose sum fits an int32
_MOST_PARTS = 64
_LEVELS = 3
_RATIO = 16  # ratio of the steps of each level to those of the level before


def parts_of(count: int) -> int | None:
    """Returns the number of equal parts in which a group is summed, so that int32 sums fit.

    Args:
        count: Number of values in the group.

    Returns:
        The least number of parts, or None if no number up to 64 divides the group.

    Example:
    >>> parts_of(768), parts_of(150_528), parts_of(2**17 - 1)
    (1, 6, None)
    """
    for parts in range(1, _MOST_PARTS + 1):
        if count % parts == 0 and count // parts <= _LARGEST_PART:
            return parts
    return None


@dataclasses.dataclass(frozen=True)
class Normalization:
    """The configuration of the normalization of 8-bit values, except for the scales.

    A mean square has three 8-bit resolutions, each of which saturates. Their sum is an
    index that is nearly logarithmic. One table maps the index to the reciprocal root.

    Attributes:
        count: Number of values in a group, `LARGEST_GROUP` at most.
        kind: `"layer"` for `(x - mean) / sqrt(variance + epsilon)`, `"rms"` for
            `x / sqrt(mean(x**2) + epsilon)`, `"unit"` for `x / max(norm, epsilon)`.
        epsilon: The constant in these formulas.

    Example:
    >>> Normalization(64, "layer", 1e-3).units, Normalization(64, "rms", 1e-3).units
    ((16.0, 256.0, 4096.0), (64.0, 1024.0, 16384.0))
    """

    count: int
    kind: str
    epsilon: float

    @property
    def centered(self) -> bool:
        """Whether the mean is subtracted."""
        return self.kind == "layer"

    @property
    def greatest(self) -> float:
        """The largest factor of values."""
        least = self.epsilon if self.kind == "unit" else self.epsilon**0.5
        return 1 / max(least, 1e-30)

    @functools.cached_property
    def parts(self) -> int:
        """Number of parts in which a group is summed."""
        return parts_of(self.count) or 1

    @property
    def part_count(self) -> int:
        """Number of values in a part."""
        return self.count // self.parts

    @property
    def finest(self) -> float:
        """Step of the finest resolution of a mean square, in squares of the input's steps."""
        # A standard deviation is at most half of 255, and a difference at most 255.
        return 0.25 if self.centered else 1.0

    @property
    def units(self) -> tuple[float, ...]:
        """Step of each resolution of the sum of squares."""
        return tuple(self.part_count * self.finest * _RATIO**level for level in range(_LEVELS))

    @functools.cached_property
    def mean_squares(self) -> np.ndarray:
        """The middle of each index's interval, float64, in squares of the input's steps."""
        halves = np.arange(STEPS) + 0.5
        ends = np.sort(np.concatenate([halves * _RATIO**level for level in range(_LEVELS)]))
        ends = np.concatenate([[0.0], ends, [2 * ends[-1] - ends[-2]]])
        return (ends[:-1] + ends[1:]) / 2 * self.finest


class Scales(NamedTuple):
    """Scales of the tensors inside a normalization, float32 scalars.

    Attributes:
        mean: Scale of the mean before rounding, which is a sum of integers.
        rest: Scale of the error of the rounded mean.
        reciprocal: Scale of the reciprocal standard deviation.
        correction: Scale of the product of both.
    """

    mean: Any
    rest: Any
    reciprocal: Any
    correction: Any


def inner_scales(input_scale: Any, reciprocal_scale: Any, count: int) -> Scales:
    """Returns the scales that follow from two scales.

    Args:
        input_scale: float32 scalar.
        reciprocal_scale: float32 scalar.
        count: Number of values in a group.

    Example:
    >>> float(inner_scales(ops.array(1.0), ops.array(2.0), 4).mean)
    0.25
    """
    # These are products only, which every compiler computes in the same way.
    rest = input_scale * np.float32(0.5 / 127)
    correction = rest * reciprocal_scale * np.float32(STEPS)
    return Scales(input_scale * np.float32(1 / count), rest, reciprocal_scale, correction)


@compiled
def reciprocals(input_scale: Any, reciprocal_scale: Any, *, normalization: Normalization) -> Any:
    """Returns the factor of values for each index of a mean square.

    Args:
        input_scale: float32 scalar.
        reciprocal_scale: float32 scalar, the step of the result.
        normalization: The configuration.

    Returns:
        int32 tensor `(766,)`, from 0 to 255.

    Example:
    >>> rule = Normalization(4, "rms", 0.0)
    >>> int(reciprocals(1.0, 0.01, normalization=rule)[2])
    71
    """
    with float64():
        scale = as_float64(input_scale)
        squares = ops.cast(normalization.mean_squares, "float64") * (scale * scale)
        epsilon = ops.cast(np.float64(normalization.epsilon), "float64")
        if normalization.kind == "unit":
            norms = ops.sqrt(squares * float(normalization.count))
            roots = ops.where(norms > epsilon, norms, epsilon)
        else:
            roots = ops.sqrt(squares + epsilon)
        # The factor moves quotients such as 127.5 away from the tie, where compilers would differ.
        steps = (1.0 + 2.0**-20) / (roots * as_float64(reciprocal_scale))
        most = ops.cast(np.float64(STEPS), "float64")
        return round_half_away(ops.where(steps < most, steps, most))


def normalize(
    x: Any,
    scale: Any,
    zero_point: Any,
    middle_scale: Any,
    middle_zero_point: Any,
    reciprocal_scale: Any,
    output_scale: Any,
    output_zero_point: Any,
    *,
    axes: tuple[int, ...],
    normalization: Normalization,
    multiply: Rule,
    subtract: Rule,
    low: int,
    high: int,
) -> Any:
    """Normalizes groups of integers like the operators of `QNormalize` in a file.

    Args:
        x: int32 tensor of 8-bit values, their zero point subtracted.
        scale: float32 scalar, of `x`.
        zero_point: int32 scalar, of `x`.
        middle_scale: float32 scalar, of the differences from the mean.
        middle_zero_point: int32 scalar, of the differences from the mean.
        reciprocal_scale: float32 scalar, of the reciprocal standard deviation.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        axes: The axes of a group.
        normalization: The configuration.
        multiply: The rule of MUL, such as `multiply.multiply`.
        subtract: The rule of SUB, such as `elementwise.subtract`.
        low: The least integer of the type.
        high: The greatest integer of the type.

    Returns:
        int32 tensor like `x`. If all values are equal and the mean is subtracted, all outputs are
        the zero point.

    Example:
    >>> from keras_qat.arithmetic.elementwise import subtract
    >>> from keras_qat.arithmetic.multiply import multiply
    >>> rule = Normalization(2, "layer", 0.0)
    >>> x = ops.array([[-4, 4], [5, 5]], "int32")
    >>> options = {"axes": (1,), "normalization": rule, "low": -128, "high": 127}
    >>> options |= {"multiply": multiply, "subtract": subtract}
    >>> normalize(x, 1.0, 0, 1.0, 0, 0.01, 0.5, 10, **options).numpy()
    array([[ 8, 12],
           [10, 10]], dtype=int32)
    """
    limits, output = (low, high), (output_scale, output_zero_point)
    order = [axis for axis in range(len(x.shape)) if axis not in axes] + list(axes)
    moved = ops.transpose(x, order)
    shape = [-1, *ops.shape(moved)[1:]]
    rows = ops.reshape(moved, (-1, normalization.parts, normalization.part_count))
    scales = inner_scales(scale, reciprocal_scale, normalization.count)
    factor = reciprocals(scale, reciprocal_scale, normalization=normalization)
    if normalization.centered:
        total = _total(rows, (1, 2))
        least, most = as_int32(low) - zero_point, as_int32(high) - zero_point
        mean = rescale(total, scales.mean, 0, scale, 0, least, most)
        factor = ops.take(factor, _index(rows - mean, normalization), axis=0)
        middle = middle_scale, middle_zero_point
        x = subtract(rows, scale, 0, mean, scale, 0, *middle, *limits) - middle_zero_point
        y = multiply(x, middle_scale, 0, factor, reciprocal_scale, 0, *output, *limits)
        rest = total - mean * normalization.count
        rest = rescale(rest, scales.mean, 0, scales.rest, 0, -128, 127)
        correction = (scales.correction, 0)
        rest = multiply(rest, scales.rest, 0, factor, reciprocal_scale, 0, *correction, -128, 127)
        y = y - output_zero_point
        y = subtract(y, output_scale, 0, rest, *correction, *output, *limits)
    else:
        factor = ops.take(factor, _index(rows, normalization), axis=0)
        y = multiply(rows, scale, 0, factor, reciprocal_scale, 0, *output, *limits)
    return ops.transpose(ops.reshape(y, shape), np.argsort(order).tolist())


def _index(x: Any, normalization: Normalization) -> Any:
    """Returns the sum of three resolutions of each group's sum of squares."""
    parts = normalization.parts
    squares = _total(x * x, (2,))
    if parts > 1:
        squares = _total((squares + parts // 2) // parts, (1,))
    levels = [rescale(squares, 1.0, 0, unit, 0, 0, STEPS) for unit in normalization.units]
    return functools.reduce(ops.add, levels)


def _total(x: Any, axes: tuple[int, ...]) -> Any:
    return ops.cast(ops.sum(x, axis=axes, keepdims=True), "int32")
