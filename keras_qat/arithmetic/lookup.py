"""Tables of an element-wise function, one entry for each 8-bit value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32, round_half_away
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import compiled, float64

_LARGEST = 2.0**20  # in steps: beyond every integer type of an output
_FINE = 2.0**8  # fine steps per step: 2**28 in all, so that a fine step still fits an int32


@compiled
def lookup_table(
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    *,
    function: Callable[[Any], Any],
    low: int,
    high: int,
) -> Any:
    """Returns the output integer of a function for each input integer from low to high.

    The function is computed in double. Its result is rounded to 1/256 of a step before it is
    rounded to a step, because compilers may compute the last bits of an exponential differently.

    Args:
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_scale: float32 scalar.
        output_zero_point: int32 scalar.
        function: An element-wise function of a float64 tensor; hashable. Where the function is not
            defined (the logarithm of a negative number) the entry is that of 0.
        low: The least integer of the type, input and output.
        high: The greatest integer of the type.

    Returns:
        int32 tensor of shape (high - low + 1,).

    Example:
    >>> lookup_table(1.0, 0, 1.0, 0, function=ops.square, low=-128, high=127).numpy()[126:131]
    array([4, 1, 0, 1, 4], dtype=int32)
    """
    integers = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32"))
    with float64():
        centered = ops.cast(integers - as_int32(input_zero_point), "float64")
        values = function(centered * as_float64(input_scale))
        steps = ops.cast(values, "float64") / as_float64(output_scale)
        limit = ops.cast(np.float64(_LARGEST), "float64")
        steps = ops.where(steps > limit, limit, ops.where(steps < -limit, -limit, steps))
        steps = ops.where(ops.equal(steps, steps), steps, ops.zeros_like(steps))
        fine = ops.cast(round_half_away(steps * _FINE), "float64")
        rounded = round_half_away(fine * (1.0 / _FINE))
    return clip(rounded + as_int32(output_zero_point), low, high)
