"""HARD_SWISH."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.hard_swish import LARGEST_SCALE_RATIO
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import function_named
from keras_qat.quantizers import Grid, ValueRange

# A little less than the kernel's limit, so that rounding cannot cross the limit.
_SCALE_RATIO = LARGEST_SCALE_RATIO - 2.0


@register(function_named("hard_silu"))
@keras.saving.register_keras_serializable("keras_qat")
class QHardSwish(Tabulated):
    """`x * relu6(x + 3) / 6`: one HARD_SWISH.

    The kernel refuses an output whose scale is less than 1/128 of the input's scale. Only an input
    that is almost always below -3 has such an output, and the output then gets a larger range.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> [float(y) for y in QHardSwish()(ops.array([-4.0, 1.5, 4.0]))]
    [-0.0, 1.125, 4.0]
    """

    learns_range = False
    operators = ("HARD_SWISH",)

    @property
    def range_source(self) -> Any:
        """Returns the observed range, extended if it is too small for the kernel."""
        return None if self.observer is None else _WideEnough(self)

    def float_forward(self, inputs, training=None):
        """Computes the function in float."""
        del training
        return ops.hard_silu(inputs)

    def table(self, grid: Grid, output: Grid):
        """Computes the output of the kernel for each integer."""
        return self.integer_rule("HARD_SWISH")(*grid, *output, **self.limits())

    def lower(self, builder, *inputs):
        """Adds one HARD_SWISH."""
        return builder.operator("HARD_SWISH", inputs)


class _WideEnough(ValueRange):
    """The range of the output. Its maximum is large enough for the scale of the input."""

    def __init__(self, layer: QHardSwish):
        super().__init__(lambda: layer.observer.seen)
        self._layer = layer

    @property
    def minimum(self):
        """The smallest observed value."""
        return self._layer.observer.minimum

    @property
    def maximum(self):
        """The largest observed value, or a value that makes the scale large enough."""
        neighbours, largest = (
            self._layer.neighbours,
            ops.convert_to_tensor(self._layer.observer.maximum),
        )
        source = neighbours.inputs[0]
        if source is None or source is neighbours.output:
            return largest
        scheme: Any = self._layer.scheme
        steps = scheme.activation_high - scheme.activation_low
        return ops.maximum(largest, source.grid().scale * np.float32(steps / _SCALE_RATIO))
