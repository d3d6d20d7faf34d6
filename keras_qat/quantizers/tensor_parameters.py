"""Quantization parameters of a group of tensors that share them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.backend import compiled
from keras_qat.quantizers.fixed_parameters import Grid
from keras_qat.quantizers.observers import RangeObserver
from keras_qat.quantizers.value_range import ValueRange
from keras_qat.quantizers.weights import reciprocal
from keras_qat.scheme import Scheme

# The scale of a tensor that is always 0.
_SCALE_OF_ZERO = np.float32(1.0 / 256.0)

# The grids that were computed in the call of a model that runs now.
_GRIDS: contextvars.ContextVar[dict[RangeParameters, Grid] | None] = contextvars.ContextVar(
    "keras_qat_grids", default=None
)


@contextlib.contextmanager
def grids_once() -> Iterator[None]:
    """Computes the grid of each group of tensors once: for the layer before it and those after.

    Returns:
        A context manager. No range may change within it.
    """
    token = _GRIDS.set({})
    try:
        yield
    finally:
        _GRIDS.reset(token)


@dataclasses.dataclass(frozen=True, eq=False)
class RangeParameters:
    """Parameters that cover the union of the ranges of one or more observers.

    The range always contains 0, which is exactly representable (zero padding and ReLU need
    it). A range of width zero, that of a tensor that is always 0, gets the scale of a usual
    tensor, 1/256: sums accept inputs of at most 256 times the scale of their output.

    Attributes:
        scheme: Gives the integer limits.
        observers: One range for each tensor of the group that is computed, not moved or selected.
        least_scale: What the scale is at least, for operators that take no smaller one.
        adjust: Changes the scale a little, given these parameters and the scale; None if nothing
            does.
    """

    scheme: Scheme
    observers: Sequence[RangeObserver | ValueRange]
    least_scale: float = 0.0
    adjust: Callable[[RangeParameters, Any], Any] | None = None

    @property
    def low(self) -> int:
        """Smallest integer of the type."""
        return self.scheme.activation_low

    def limits(self) -> tuple[float, float]:
        """Returns the union of the ranges as they are now, as Python numbers."""
        ends = [[float(ops.convert_to_numpy(end)) for end in each.ends] for each in self.observers]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def grid(self) -> Grid:
        """Returns the scale and the zero point of the ranges as they are now."""
        grids = _GRIDS.get()
        if grids is None:
            return self._computed()
        if self not in grids:
            grids[self] = self._computed()
        return grids[self]

    @property
    def learns(self) -> bool:
        """Whether training learns the ranges of the group by their gradient."""
        return any(getattr(each, "factors", None) is not None for each in self.observers)

    def trained_ends(self, count: int) -> tuple[Any, Any]:
        """Returns both ends of the union of the ranges and 0, with the gradient of learned ranges.

        Args:
            count: The number of values of a sample.
        """
        steps = self.scheme.activation_high - self.scheme.activation_low
        lows, highs = zip(
            *(observer.trained_ends(count, steps) for observer in self.observers), strict=True
        )
        low, high = _smallest(lows), _largest(highs)
        if not self.scheme.activation_symmetric:
            return low, high
        size = ops.maximum(high, -low)
        return -size, size

    def _computed(self) -> Grid:
        lows, highs = zip(*(observer.ends for observer in self.observers), strict=True)
        if self.scheme.activation_symmetric:
            steps, least = self.scheme.activation_high, self.least_scale
            return _symmetric_grid(*lows, *highs, steps=steps, least_scale=least)
        low, high = self.scheme.activation_low, self.scheme.activation_high
        options = {"steps": high - low, "least_scale": self.least_scale, "lowest": low}
        grid = _union_grid(*lows, *highs, **options)
        if self.adjust is None:
            return grid
        scale = self.adjust(self, grid.scale)
        return Grid(scale, _zero_point(scale, *lows, lowest=low))


@compiled
def _union_grid(*ends, steps: int, least_scale: float, lowest: int) -> Grid:
    """Returns the grid of the union of some ranges: all minima, then all maxima."""
    count = len(ends) // 2
    # Compilers turn a division by a constant into this product, so write the product.
    scale = (_largest(ends[count:]) - _smallest(ends[:count])) * np.float32(1.0 / steps)
    scale = ops.where(scale < np.float32(1e-30), _SCALE_OF_ZERO, scale)
    scale = ops.maximum(scale, np.float32(least_scale))
    return Grid(scale, _zero_point(scale, *ends[:count], lowest=lowest))


@compiled
def _symmetric_grid(*ends, steps: int, least_scale: float) -> Grid:
    """Returns the grid of the largest magnitude, with a zero point of 0."""
    scale = ops.maximum(_largest(ends), -_smallest(ends)) * np.float32(1.0 / steps)
    scale = ops.where(scale < np.float32(1e-30), _SCALE_OF_ZERO, scale)
    scale = ops.maximum(scale, np.float32(least_scale))
    return Grid(scale, ops.zeros((), "int32"))


@compiled
def _zero_point(scale, *minima, lowest: int):
    """Returns the integer that stands for 0.0 if the range starts at the smallest minimum."""
    return lowest - ops.cast(ops.round(_smallest(minima) * reciprocal(scale)), "int32")


def _smallest(values: Sequence[Any]) -> Any:
    return functools.reduce(ops.minimum, values, ops.convert_to_tensor(np.float32(0.0)))


def _largest(values: Sequence[Any]) -> Any:
    return functools.reduce(ops.maximum, values, ops.convert_to_tensor(np.float32(0.0)))
