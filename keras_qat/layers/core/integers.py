"""Tensors between layers: their integers and their quantization parameters."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from keras import ops, tree

from keras_qat.quantizers import (
    FixedParameters,
    RangeParameters,
    fake_quantize,
    grids_once,
    with_range_gradient,
)
from keras_qat.scheme import Scheme

Parameters = FixedParameters | RangeParameters


@dataclasses.dataclass(eq=False)
class NeighbourParams:
    """The quantization parameters around a layer. A plain object: Keras must not track it.

    Attributes:
        inputs: Parameters of each input tensor; None for a tensor that is not quantized.
        output: Parameters of the output tensor.
    """

    inputs: Sequence[Parameters | None] = ()
    output: Parameters | None = None


class OffsetInts(NamedTuple):
    """A tensor in integers.

    Attributes:
        values: float32 whole numbers `q - zero_point`.
        grid: Its quantization parameters; None for a model input, whose values are real.
    """

    values: Any
    grid: Any


# The integers of the tensors that layers made in the call of a model that runs now, by `id`.
_INTEGERS: contextvars.ContextVar[dict[int, tuple[Any, OffsetInts]] | None] = (
    contextvars.ContextVar("keras_qat_integers", default=None)
)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Shares what layers compute in one call of a model: grids, and the integers of tensors.

    A layer takes the integers that the layer before it computed, instead of dividing the real
    values by their scale and rounding. The integers are kept as long as the real values.

    Returns:
        A context manager. No range may change within it.
    """
    integers: dict[int, tuple[Any, OffsetInts]] = {}
    token = _INTEGERS.set(integers)
    try:
        with grids_once():
            yield
    finally:
        _INTEGERS.reset(token)
        integers.clear()


def center(x, parameters: Parameters | None) -> OffsetInts:
    """Turns the real values of a tensor into the integers that they stand for.

    Args:
        x: float32 tensor of real values, each a multiple of the scale.
        parameters: Its quantization parameters; None leaves `x` as it is.

    Returns:
        The centered integers.
    """
    if parameters is None:
        return OffsetInts(x, None)
    known = (_INTEGERS.get() or {}).get(id(x))
    if known is not None and known[0]() is x:
        return known[1]
    grid = parameters.grid()
    return OffsetInts(ops.round(x / grid.scale), grid)


def real_values(centered: OffsetInts):
    """Returns the real values of centered integers.

    Args:
        centered: The integers and their grid.

    Returns:
        float32 tensor.
    """
    x = centered.values * centered.grid.scale
    key, known = id(x), _INTEGERS.get()
    if known is not None:
        known[key] = weakref.ref(x, lambda _: known.pop(key, None)), centered
    return x


def in_integers(compute: Callable[..., Any], inputs: Any, neighbours: NeighbourParams) -> Any:
    """Computes an operator in integers on real values.

    Args:
        compute: The `integer` of a layer.
        inputs: float32 tensors of real values, in any structure.
        neighbours: The parameters of these tensors and of the output.

    Returns:
        The real values of the output; or plain integers or booleans.
    """
    tensors = tree.flatten(inputs)
    centered = [center(x, p) for x, p in zip(tensors, neighbours.inputs, strict=True)]
    grid = None if neighbours.output is None else neighbours.output.grid()
    values = compute(*centered, output=grid)
    return values if grid is None else real_values(OffsetInts(values, grid))


def rounded(y: Any, output: Parameters, scheme: Scheme) -> Any:
    """Rounds an output to its grid, straight through.

    Args:
        y: float32 tensor.
        output: Its quantization parameters.
        scheme: The scheme of the layer.

    Returns:
        float32 tensor of the shape of `y`, with the gradient of a learned range if there is one.
    """
    grid, limits = output.grid(), (scheme.activation_low, scheme.activation_high)
    values = fake_quantize(y, grid.scale, grid.zero_point, *limits)
    if isinstance(output, FixedParameters) or not output.learns:
        return values
    count = math.prod(size or 1 for size in y.shape[1:])
    return with_range_gradient(y, values, grid, limits, output.trained_ends(count))
