"""Computes the logarithm of a softmax by two tables and a sum of integers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float64,
    as_int32,
    quotient,
    round_half_away,
    scale_ratio,
)
from keras_qat.arithmetic.requantize import clip
from keras_qat.arithmetic.segments import Segments
from keras_qat.backend import compiled, float64

MOST_CLASSES = 2**16
LOWEST_DIFFERENCE = -255  # between two int8 values
STEP_BITS = 12  # fractional bits of the output, before rounding
_EXPONENTIAL_BITS = 22
_FINE_BITS = 9  # the table of the logarithm has steps of 1/512 where the logarithm is steepest
_ENTRIES = 2**11


@dataclasses.dataclass(frozen=True)
class LogSoftmax:
    """The configuration of a log-softmax, except for the scales.

    Attributes:
        classes: Size of the axis, `MOST_CLASSES` at most.

    Example:
    >>> LogSoftmax(10).bits, LogSoftmax(1000).bits
    (22, 21)
    """

    classes: int

    @property
    def bits(self) -> int:
        """Fractional bits of the exponentials, whose sum fits an int32."""
        return min(_EXPONENTIAL_BITS, 31 - self.classes.bit_length())

    @functools.cached_property
    def segments(self) -> Segments:
        """The mapping from the sum of the exponentials, minus the largest, to an index."""
        greatest = (self.classes - 1) << self.bits
        return Segments(self.bits - _FINE_BITS, _ENTRIES, greatest)


class Tables(NamedTuple):
    """int32 tables, see `log_softmax_tables`.

    Attributes:
        exponentials: Exponential of each difference from the largest value, from -255 to 0.
        differences: The same differences in steps of the output.
        logarithms: Logarithm for each index of a sum, in steps of the output, minus one half for
            rounding.
    """

    exponentials: Any
    differences: Any
    logarithms: Any


@compiled
def log_softmax_tables(input_scale: Any, output_scale: Any, *, rule: LogSoftmax) -> Tables:
    """Computes the tables, in double.

    Args:
        input_scale: float32 scalar.
        output_scale: float32 scalar.
        rule: The configuration.

    Returns:
        The tables; steps have `STEP_BITS` fractional bits and saturate at 2**29.

    Example:
    >>> tables = log_softmax_tables(1.0, 0.5, rule=LogSoftmax(2))
    >>> (tables.differences[-3:] / 2**12).numpy().tolist()
    [-4.0, -2.0, 0.0]
    """
    differences = np.arange(LOWEST_DIFFERENCE, 1, dtype="float64")
    logarithms = np.log1p(rule.segments.middles / 2.0**rule.bits)
    with float64():
        # Constants times a correctly rounded ratio: the result does not depend on the compiler.
        ratio = scale_ratio(input_scale, 1.0, output_scale)
        one = quotient(as_float64(1.0), as_float64(output_scale))
        wide = ops.cast(differences, "float64")
        exponentials = ops.exp(wide * as_float64(input_scale)) * 2.0**rule.bits
        steps = wide * ratio * 2.0**STEP_BITS
        logs = ops.cast(logarithms, "float64") * one * 2.0**STEP_BITS
        integers = [round_half_away(values) for values in (exponentials, steps, logs)]
    return Tables(integers[0], integers[1], integers[2] - 2 ** (STEP_BITS - 1))


def log_softmax(
    q: Any,
    exponentials: Any,
    differences: Any,
    logarithms: Any,
    zero_point: Any,
    *,
    rule: LogSoftmax,
    low: int,
    high: int,
) -> Any:
    """Computes `x - max - log(sum(exp(x - max)))` over the last axis in int32 arithmetic.

    The exponential of the largest value is 1, so the logarithm is `log1p` of the others.

    Args:
        q: int32 tensor `(..., classes)` of int8 values.
        exponentials: From `log_softmax_tables`.
        differences: From `log_softmax_tables`.
        logarithms: From `log_softmax_tables`.
        zero_point: int32 scalar, zero point of the output.
        rule: The configuration.
        low: The least output.
        high: The greatest output.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> rule = LogSoftmax(2)
    >>> tables = log_softmax_tables(1.0, 2**-5, rule=rule)
    >>> options = {"rule": rule, "low": -128, "high": 127}
    >>> log_softmax(ops.array([[0, 1]], "int32"), *tables, 127, **options).numpy()
    array([[ 85, 117]], dtype=int32)
    """
    index = q - ops.max(q, axis=-1, keepdims=True) - LOWEST_DIFFERENCE
    terms = ops.take(exponentials, index, axis=0)
    others = ops.cast(ops.sum(terms, axis=-1, keepdims=True), "int32") - 2**rule.bits
    logarithm = ops.take(logarithms, rule.segments.index(others), axis=0)
    steps = ops.right_shift(ops.take(differences, index, axis=0) - logarithm, as_int32(STEP_BITS))
    return clip(steps + as_int32(zero_point), low, high)
