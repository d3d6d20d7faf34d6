"""LEAKY_RELU."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.functions import function_named, function_of
from keras_qat.layers.elementwise.prelu import Sloped
from keras_qat.quantizers import Grid
from keras_qat.scheme import BYTE, Scheme


@register(function_named("leaky_relu"))
@keras.saving.register_keras_serializable("keras_qat")
class QLeakyReLU(Sloped):
    """ReLU with one given slope for negative values: one LEAKY_RELU, or a PRELU.

    LEAKY_RELU is many times faster, but its kernels for phones and PCs differ from the reference
    kernel by a step in up to a sixth of all values. The kernels of PRELU agree, and take negative
    slopes.

    Args:
        negative_slope: The slope, any finite number.
        operator: `"LEAKY_RELU"` or `"PRELU"`; None for LEAKY_RELU if the slope is not negative.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QLeakyReLU(0.5)(np.array([[-2.0, 3.0]], "float32")).numpy().tolist()
    [[-1.0, 3.0]]
    """

    activation_bits = (8, 16)
    operators = ("LEAKY_RELU", "PRELU")

    def __init__(
        self,
        negative_slope: float,
        *,
        operator: str | None = None,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.negative_slope = float(negative_slope)
        self.operator = operator or ("PRELU" if self.negative_slope < 0 else "LEAKY_RELU")
        is_wide = self.scheme is not None and self.scheme.activation_bits > BYTE
        if is_wide and self.operator == "PRELU":
            raise UnsupportedLayerError(
                "LiteRT has no PRELU of 16-bit integers.",
                layer=self.name,
                received=f"a leaky ReLU as PRELU, with a slope of {self.negative_slope}",
                expected="a slope that is not negative, as LEAKY_RELU",
                fix='Remove `activations="lookup"`, or use `overrides` with "int8" for the layer.',
            )

    def build(self, input_shape):
        """Checks the rank and builds the range observer."""
        super().build(input_shape)
        self._rank = len(input_shape)

    @property
    def most_axes(self) -> int | None:
        """Largest number of axes that the kernel supports; None for any number."""
        return super().most_axes if self.operator == "PRELU" else None

    def slopes(self):
        """Returns the slope, with as many axes as a sample."""
        return ops.full((1,) * (self._rank - 1), self.negative_slope, dtype="float32")

    def training_forward(self, inputs):
        """Computes in float, a slope of PRELU on its grid, and rounds the output."""
        if self.operator == "PRELU":
            return super().training_forward(inputs)
        return self.quantize_output(self.float_forward(inputs, training=True))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Computes as the target's kernel does."""
        if self.operator == "PRELU":
            return super().integer(*inputs, output=output)
        ((values, grid),), scheme = inputs, self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        slope = np.float32(self.negative_slope)
        tensors = values, grid.scale, slope, *output, *limits
        return _leaky_centered(*tensors, rule=self.integer_rule("LEAKY_RELU"))

    def lower(self, builder, *inputs):
        """Adds one LEAKY_RELU or PRELU."""
        if self.operator == "PRELU":
            return super().lower(builder, *inputs)
        return builder.operator(
            "LEAKY_RELU",
            inputs,
            options={"alpha": self.negative_slope},
        )

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for an activation, a layer or an operation."""
        return cls(**_options_of(node), name=node.name, scheme=scheme)

    @classmethod
    def lookup_from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer with a PRELU, which is the same in all kernels."""
        return cls(**_options_of(node), operator="PRELU", name=node.name, scheme=scheme)

    @classmethod
    def from_config(cls, config):
        """Makes the layer. A layer that was saved without `operator` is a PRELU."""
        return super().from_config({"operator": "PRELU", **config})

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"negative_slope": self.negative_slope, "operator": self.operator}
        return {**super().get_config(), **own}


def _options_of(node: Node) -> dict[str, Any]:
    function = function_of(node.head)
    assert function is not None
    return dict(function.options)


@compiled
def _leaky_centered(x, scale, slope, output_scale, zero_point, low, high, *, rule):
    q = rule(ops.cast(x, "int32"), scale, 0, slope, output_scale, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")
