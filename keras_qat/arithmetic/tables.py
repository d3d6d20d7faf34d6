"""Tables of the C library's functions, and scales at which all C libraries make the same table.

C libraries compute the last bits of an exponential or a hyperbolic tangent differently. That
changes an entry of a table only where the exact result lies next to a rounding tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float32, as_float64, as_int32, round_half_away
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import compiled, float64

# Scales to try in turn, relative to the observed scale.
_WIDER = (1.0 + np.arange(32) / 4096.0).astype("float32")
# Distance from a tie in steps. The error of a float32 table is less than a twentieth of it.
_FAR = np.float32(1.25e-3)


class Table(NamedTuple):
    """A table of a kernel, and the end of it whose scale may change.

    Attributes:
        function: The function of a float64 tensor; hashable.
        free_end: `"input"`, `"output"`, or `"both"` if they have the same scale.
        low: The least integer of the type.
        high: The greatest integer of the type.
    """

    function: Callable[[Any], Any]
    free_end: str
    low: int
    high: int


@compiled
def operator_table(
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    *,
    function: Callable[[Any], Any],
    low: int,
    high: int,
) -> Any:
    """Returns the output integer of TANH, GELU or ELU for each input integer from low to high.

    Source: `LUTPopulate` in TFLite's `kernels/internal/common.h`, which rounds each step to
    float32.

    Args:
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        function: The function of a float64 tensor; hashable.
        low: The least integer of the type, input and output.
        high: The greatest integer of the type.

    Returns:
        int32 tensor of shape (high - low + 1,).

    Example:
    >>> operator_table(0.5, 0, 1 / 128, 0, function=ops.tanh, low=-128, high=127).numpy()[127:130]
    array([-59,   0,  59], dtype=int32)
    """
    with float64():
        values = _in_float32(function(_inputs(input_scale, input_zero_point, low, high)))
        inverse = _in_float32(1.0 / as_float64(output_scale))
        steps = round_half_away(_in_float32(values * inverse))
    return clip(steps + as_int32(output_zero_point), low, high)


@compiled
def away_from_ties(scale: Any, *others: Any, tables: tuple[Table, ...]) -> Any:
    """Returns the first of some slightly wider scales at which no table depends on the C library.

    At this scale no entry of a table is within 1.25 thousandths of a step of a rounding tie. The
    32 scales that are tried grow by 1/4096 each. If none of them is good, the best one is returned.

    Args:
        scale: float32 scalar, the observed scale of a tensor.
        *others: For each table the float32 scale and the int32 zero point of the tensor at its
            other end. They are ignored if both ends have the same scale.
        tables: The tables.

    Returns:
        float32 scalar, at least `scale`, and at most 0.8 % larger.

    Example:
    >>> halves = Table(ops.relu, "output", -1, 2)
    >>> round(float(away_from_ties(1.0, 0.5, 0, tables=(halves,))), 5)
    1.00269
    """
    scale = as_float32(scale)
    wider = ops.convert_to_tensor(_WIDER)

    def is_near(index, best, distance):
        """Returns whether the best scale is too near a tie, and another one is left to try."""
        del best
        return ops.logical_and(index < len(_WIDER), distance < _FAR)

    def try_next(index, best, distance):
        """Keeps the next scale if its table is farther from a tie than the best one so far."""
        found = _distance(scale * ops.take(wider, index), others, tables)
        is_better = found > distance
        return index + 1, ops.where(is_better, index, best), ops.maximum(found, distance)

    start = as_int32(0), as_int32(0), as_float32(-1.0)
    _, best, _ = ops.while_loop(is_near, try_next, start)
    return scale * ops.take(wider, best)


def _distance(scale: Any, others: Sequence[Any], tables: Sequence[Table]) -> Any:
    """Returns the least distance of an entry of all tables from a tie, in steps."""
    distance = as_float32(0.5)
    for i, table in enumerate(tables):
        other, zero_point = others[2 * i : 2 * i + 2]
        # A tensor that shares a scale with others may have any zero point.
        low, high = (table.low, table.high) if table.free_end == "output" else (-255, 255)
        with float64():
            free = as_float64(scale)
            given = free if table.free_end == "both" else as_float64(other)
            source, target = (given, free) if table.free_end == "output" else (free, given)
            offset = as_int32(zero_point) if table.free_end == "output" else 0
            integers = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32")) - offset
            values = table.function(ops.cast(integers, "float64") * source)
            steps = ops.cast(values, "float64") / target
            away = ops.abs(steps - ops.cast(ops.floor(steps), "float64") - 0.5)
            found = ops.cast(ops.min(away), "float32")
        distance = ops.minimum(distance, found)
    return distance


def erf_gelu(x: Any) -> Any:
    """Computes GELU of a float64 tensor by the error function."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def tanh_gelu(x: Any) -> Any:
    """Computes the approximation of GELU by a hyperbolic tangent, of a float64 tensor."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def elu(x: Any) -> Any:
    """Computes ELU with an alpha of 1, of a float64 tensor."""
    return ops.where(x < 0.0, ops.exp(ops.minimum(x, 0.0)) - 1.0, x)


def logistic(x: Any) -> Any:
    """Computes the sigmoid of a float64 tensor."""
    return 1.0 / (1.0 + ops.exp(-x))


def _inputs(scale: Any, zero_point: Any, low: int, high: int) -> Any:
    """Returns the real input of each integer as computed in float32, in float64."""
    integers = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32"))
    centered = ops.cast(integers - as_int32(zero_point), "float64")
    return _in_float32(centered * as_float64(scale))


def _in_float32(x: Any) -> Any:
    """Rounds a float64 to the result that float32 arithmetic would have."""
    return ops.cast(ops.cast(x, "float32"), "float64")
