"""The table of LOGISTIC, which the kernels compute in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32, round_half_away
from keras_qat.arithmetic.requantize import clip
from keras_qat.backend import compiled, float64

STEPS_IN_ONE = 256  # steps of the output in 1.0, as the kernel requires: no product is rounded


@compiled
def logistic_table(
    input_scale: Any, input_zero_point: Any, output_zero_point: Any, *, low: int, high: int
) -> Any:
    """Returns the output integer of LOGISTIC for each input integer from low to high.

    Source: `LUTPopulate` in TFLite's `kernels/internal/common.h`, the function from
    `SigmoidPrepare` in `kernels/activations.cc`. Each step is rounded to float32, as in C++.

    Args:
        input_scale: float32 scalar.
        input_zero_point: int32 scalar.
        output_zero_point: int32 scalar; the output's scale is 1/256.
        low: The least integer of the type, input and output.
        high: The greatest integer of the type.

    Returns:
        int32 tensor of shape (high - low + 1,).

    Example:
    >>> logistic_table(1.0, 0, -128, low=-128, high=127).numpy()[127:130]
    array([-59,   0,  59], dtype=int32)
    """
    integers = ops.convert_to_tensor(np.arange(low, high + 1, dtype="int32"))
    with float64():
        centered = ops.cast(integers - as_int32(input_zero_point), "float64")
        exponential = ops.exp(-_in_float32(centered * as_float64(input_scale)))
        denominator = _in_float32(1.0 + _in_float32(exponential))
        steps = round_half_away(_in_float32(1.0 / denominator) * float(STEPS_IN_ONE))
    return clip(steps + as_int32(output_zero_point), low, high)


def _in_float32(x: Any) -> Any:
    """Rounds a float64 to the result that float32 arithmetic would have."""
    return ops.cast(ops.cast(x, "float32"), "float64")
