"""The mean of the values that a mask keeps, in int32 arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import (
    as_float64,
    as_int32,
    exponent,
    power_of_two,
    quotient,
    round_half_away,
)
from keras_qat.backend import compiled, float64

# Sums of int8 values less their zero point, times the factor, stay below 2^30.
_SUM_BITS = 30
_VALUE_BITS = 8


@compiled
def mean_factor(input_scale: Any, output_scale: Any, *, steps: int) -> tuple[Any, Any]:
    """Returns integers whose quotient is the ratio of two scales.

    Args:
        input_scale: float32 scalar.
        output_scale: float32 scalar.
        steps: The number of values in a mean, at most 2^19.

    Returns:
        int32 scalars: the factor of the sum of centered integers, and the divisor for each value,
        which is even. The factor has about 22 bits less those of `steps`, so its error moves the
        mean by less than 255 * steps / 2^22 steps of the output.

    Example:
    >>> factor, divisor = mean_factor(0.5, 0.25, steps=4)
    >>> int(factor) / int(divisor)
    2.0
    """
    bits = max(steps - 1, 1).bit_length()
    room = _SUM_BITS - _VALUE_BITS - bits
    with float64():
        ratio = quotient(as_float64(input_scale), as_float64(output_scale))
        shift = ops.clip(room - exponent(ratio), 1, _SUM_BITS - 1 - bits)
        factor = as_int32(round_half_away(ratio * power_of_two(shift)))
        divisor = as_int32(power_of_two(shift))
    return ops.minimum(factor, np.int32(2**room)), divisor


def masked_mean(
    x: Any, mask: Any, factor: Any, divisor: Any, zero_point: Any, low: Any, high: Any
) -> Any:
    """Averages the values along the second axis that a mask keeps.

    Args:
        x: float32 whole numbers `q - zero_point`, `(samples, steps, channels)`.
        mask: bool tensor `(samples, steps)`.
        factor: From `mean_factor`.
        divisor: From `mean_factor`.
        zero_point: int32 scalar, of the output.
        low: int32 scalar, the least integer of the output.
        high: int32 scalar, the greatest integer of the output.

    Returns:
        int32 tensor `(samples, 1, channels)`, zero point included, rounded half up. It is the zero
        point where the mask keeps nothing.

    Example:
    >>> x, mask = ops.array([[[8.0], [2.0], [9.0]]]), ops.array([[True, True, False]])
    >>> int(masked_mean(x, mask, 64, 64, 1, -128, 127)[0, 0, 0])
    6
    """
    kept = ops.cast(ops.expand_dims(mask, -1), "int32")
    total = ops.sum(ops.cast(x, "int32") * kept, axis=1, keepdims=True)
    count = ops.maximum(ops.sum(kept, axis=1, keepdims=True), 1)
    divisors, half = count * divisor, count * (divisor // 2)
    steps = ops.floor_divide(total * factor + half, divisors)
    return ops.clip(steps + zero_point, low, high)
