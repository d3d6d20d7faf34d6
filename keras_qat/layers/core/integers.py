"""Tensors between layers: their integers and their quantization parameters."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_qat.quantizers import FixedParameters, RangeParameters, grids_once

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
