"""The integers that decide comparisons with real constants."""

from __future__ import annotations

from typing import Any

from keras import ops


def steps_around(value: Any, scale: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """Returns the steps of a grid on both sides of real values.

    A step k stands for `k * scale`, rounded to float32. Comparing k with one of the results is the
    same as comparing that real value with `value`, for every k from `low + 1` to `high - 1`: the
    first result decides `>` and `<=`, the second `<` and `>=`.

    Args:
        value: float32 tensor.
        scale: float32 scalar, the size of a step.
        low: float32 scalar, a whole number below all steps that occur.
        high: float32 scalar, a whole number above all steps that occur.

    Returns:
        The last step that is at most the value, and the first step that is at least the value.
        Both are float32 whole numbers from `low` to `high`.

    Example:
    >>> below, above = steps_around(ops.array([0.6, 1.0, 99.0]), 0.5, -129.0, 128.0)
    >>> below.numpy().tolist(), above.numpy().tolist()
    ([1.0, 2.0, 128.0], [2.0, 2.0, 128.0])
    """
    # The quotient may be wrong by its last bit, so its neighbors are compared.
    near = ops.clip(ops.floor(value / scale), low, high)
    below = near + ops.cast((near + 1.0) * scale <= value, "float32")
    below = below - ops.cast(near * scale > value, "float32")
    above = ops.where(ops.equal(below * scale, value), below, below + 1.0)
    return ops.clip(below, low, high), ops.clip(above, low, high)
