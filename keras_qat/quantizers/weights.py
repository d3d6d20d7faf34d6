"""Narrow-range quantization of weights, symmetric or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.backend import float64, traced_once
from keras_qat.quantizers.delay import unless_delayed
from keras_qat.scheme import Scheme

Axes = int | tuple[int, ...] | None

# The scale of a channel of zeros, whose weights are 0 at any scale.
SMALLEST_SCALE = np.float32(1e-30)
# A weight at the end of its grid is inside, however its number of steps was rounded.
_ROUNDING = np.float32(2.0**-10)


def reciprocal(x):
    """Returns 1 / x, such that a product with it has the same bits under every compiler.

    TensorFlow's graph optimizer makes 1 / x an approximate operation, or turns `y * (1 / x)` into
    `y / x`; XLA does the latter the other way round. An error in the last bits of a double is
    gone in the float32, and the cast keeps the product a product.

    Args:
        x: float32 tensor, positive.

    Returns:
        float32 tensor.

    Example:
    >>> float(reciprocal(ops.array(4.0)))
    0.25
    """
    with float64():
        return ops.cast(1.0 / ops.cast(x, "float64"), "float32")


class WeightGrid(NamedTuple):
    """The quantization parameters of weights at one moment.

    Attributes:
        scale: float32 tensor that broadcasts against the weights, never 0.
        zero_point: The integer that stands for 0.0: 0 for signed symmetric weights; else an int32
            tensor of the shape of `scale`, or a number.
        low: Smallest integer, a number.
        high: Largest integer, a number.
    """

    scale: Any
    zero_point: Any
    low: int
    high: int


def weight_grid(
    weights,
    axis: Axes,
    scheme: Scheme,
    least_scale: Any = None,
    step: Any = None,
) -> WeightGrid:
    """Returns the grid that covers all weights, or a grid of given steps.

    Asymmetric weights are those of TensorFlow 1: the range from the smallest to the largest one,
    extended to hold 0, which gets its own integer.
    Source: `ChooseQuantizationParams` in TensorFlow 1's `lite/toco/tooling_util.cc`, with
    the narrow range of its `FakeQuantWithMinMaxVars`.

    Args:
        weights: float32 tensor.
        axis: Axes to reduce over, all but the channels'; None for one scale per tensor.
        scheme: Gives the integer limits, and whether the grid is symmetric.
        least_scale: float32 tensor that broadcasts with the scales, which are not less; None
            for no limit.
        step: float32 tensor that broadcasts with the scales, the size of a step. Larger weights
            are clipped. 0, or None, for the steps that cover all weights.

    Returns:
        A `WeightGrid`, the reduced axes kept at size 1.

    Example:
    >>> import numpy as np
    >>> from keras_qat.scheme import get_scheme
    >>> w = np.array([[0.5], [-1.27]], "float32")
    >>> float(weight_grid(w, 0, get_scheme("int8")).scale[0, 0])
    0.009999999776482582
    >>> grid = weight_grid(w, 0, get_scheme("uint8"))
    >>> int(grid.zero_point[0, 0]), grid.low, grid.high
    (183, 1, 255)
    """
    limits = scheme.weight_low, scheme.weight_high
    if scheme.weight_symmetric:
        width = ops.max(ops.abs(weights), axis=axis, keepdims=True)
        steps = scheme.weight_steps // 2
    else:
        zero = np.float32(0.0)
        below = ops.minimum(ops.min(weights, axis=axis, keepdims=True), zero)
        width = ops.maximum(ops.max(weights, axis=axis, keepdims=True), zero) - below
        steps = scheme.weight_steps
    # The product, not the quotient: compilers would replace the division, some of the time.
    scale = covering = ops.maximum(width * np.float32(1.0 / steps), SMALLEST_SCALE)
    if step is not None:
        scale = ops.where(step > 0, ops.maximum(step, SMALLEST_SCALE), covering)
    if least_scale is not None:
        scale = ops.maximum(scale, least_scale)
    if scheme.weight_symmetric:
        return WeightGrid(scale, (limits[0] + limits[1]) // 2, *limits)
    # Smaller steps clip both ends of the range by the same share, so that 0 keeps its place.
    widest = scale if step is None else ops.maximum(scale, covering)
    zero_point = limits[0] - ops.cast(ops.round(below * reciprocal(widest)), "int32")
    return WeightGrid(scale, zero_point, *limits)


def quantize_weights(weights, grid: WeightGrid):
    """Rounds weights to centered integers, from `low - zero_point` to `high - zero_point`.

    Args:
        weights: float32 tensor.
        grid: Their grid.

    Returns:
        float32 tensor of whole numbers.

    Example:
    >>> import numpy as np
    >>> grid = WeightGrid(0.1, 0, -127, 127)
    >>> [float(q) for q in quantize_weights(np.array([0.26, -19.0], "float32"), grid)]
    [3.0, -127.0]
    """
    low, high = (ops.cast(limit - grid.zero_point, "float32") for limit in (grid.low, grid.high))
    return ops.clip(ops.round(weights * reciprocal(grid.scale)), low, high)


def fake_quantize_weights(
    weights, axis: Axes, scheme: Scheme, *, factor: Any = None, least_scale: Any = None
):
    """Rounds weights to the grid that covers them; the gradient passes straight through.

    The grid masks no gradient, because no weight is outside of it.

    Args:
        weights: float32 tensor.
        axis: Axes to reduce over, as in `weight_grid`.
        scheme: Gives the integer limits, and whether the grid is symmetric.
        factor: float32 tensor that broadcasts against the weights, never 0. The grid is that of
            the weights times the factor. None for 1.
        least_scale: As in `weight_grid`.

    Returns:
        float32 tensor of the shape of `weights`; `weights` while quantization is `delayed`.

    Example:
    >>> import numpy as np
    >>> from keras_qat.scheme import get_scheme
    >>> w = np.array([0.266, -1.27], "float32")
    >>> [round(float(v), 4) for v in fake_quantize_weights(w, None, get_scheme("int8"))]
    [0.27, -1.27]
    """
    fixed = ops.stop_gradient(ops.convert_to_tensor(weights))
    optional = {"factor": factor, "least_scale": least_scale}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    error = _rounding_error(fixed, *given.values(), given=tuple(given), axis=axis, scheme=scheme)
    return unless_delayed(weights, weights + ops.stop_gradient(error))


@traced_once
def _rounding_error(weights, *optional, given, axis, scheme):
    """Returns what the rounding to a covering grid adds to each weight."""
    limits = dict(zip(given, optional, strict=True))
    factor = limits.get("factor")
    scaled = weights if factor is None else weights * factor
    grid = weight_grid(scaled, axis, scheme, limits.get("least_scale"))
    rounded = quantize_weights(scaled, grid) * grid.scale
    return (rounded if factor is None else rounded / factor) - weights


def clip_weights(weights, grid: WeightGrid):
    """Rounds weights to a grid that may clip them, with the gradients of learned steps.

    A weight inside the grid has the gradient 1, a clipped one 0. The scale has the gradient
    `q - w / scale` of each weight inside, and `q` of each clipped one, where `q` is the weight's
    integer.
    Source: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153,
    equations 3 and 5.

    Args:
        weights: float32 tensor.
        grid: Their grid.

    Returns:
        float32 tensor of the shape of `weights`; `weights` while quantization is `delayed`.

    Example:
    >>> import numpy as np
    >>> w = np.array([0.26, -1.0], "float32")
    >>> [round(float(v), 4) for v in clip_weights(w, WeightGrid(0.1, 0, -7, 7))]
    [0.3, -0.7]
    """
    integers = ops.stop_gradient(quantize_weights(weights, grid))
    scale = ops.stop_gradient(grid.scale)
    steps = ops.stop_gradient(weights) * reciprocal(scale)
    low, high = (ops.cast(limit - grid.zero_point, "float32") for limit in (grid.low, grid.high))
    is_inside = ops.logical_and(steps >= low - _ROUNDING, steps <= high + _ROUNDING)
    is_inside = ops.cast(is_inside, "float32")
    # Both differences are 0 and have a gradient.
    rounded = integers * scale + is_inside * (weights - ops.stop_gradient(weights))
    rounded = rounded + (grid.scale - scale) * (integers - is_inside * steps)
    return unless_delayed(weights, rounded)
