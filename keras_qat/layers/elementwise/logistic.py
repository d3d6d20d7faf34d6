"""LOGISTIC."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic.logistic import STEPS_IN_ONE, logistic_table
from keras_qat.arithmetic.tables import logistic
from keras_qat.graph import Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import function_named
from keras_qat.quantizers import Fixed, Grid
from keras_qat.scheme import Scheme


@register(function_named("sigmoid"))
@keras.saving.register_keras_serializable("keras_qat")
class QSigmoid(Tabulated):
    """Sigmoid: one LOGISTIC, whose output LiteRT fixes to 1/256 and -128.

    Args:
        avoids_ties: Whether the scale of the input is widened, by 0.8 % at most, until every C
            library makes the same table of the kernel.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> float(QSigmoid()(ops.array([0.0]))[0])
    0.5
    """

    operators = ("LOGISTIC",)
    activation_bits = (8, 16)
    output_specification = Fixed(1 / STEPS_IN_ONE, -128, wide_scale=2.0**-15)
    function = staticmethod(logistic)

    def __init__(
        self, *, avoids_ties: bool = True, scheme: str | Scheme | None = None, **kwargs: Any
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.avoids_ties = avoids_ties

    def float_forward(self, inputs, training=None):
        """Computes the sigmoid in float."""
        del training
        return ops.sigmoid(inputs)

    def table(self, grid: Grid, output: Grid):
        """Computes the kernel's own table."""
        return logistic_table(*grid, output.zero_point, **self.limits())

    def lower(self, builder, *inputs):
        """Adds one LOGISTIC."""
        return builder.operator("LOGISTIC", inputs)

    @classmethod
    def lookup_from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer with the scale of the input as observed."""
        return cls(avoids_ties=False, name=node.name, scheme=scheme)

    @classmethod
    def from_config(cls, config):
        """Makes the layer. A layer that was saved without `avoids_ties` computes the same."""
        return super().from_config({"avoids_ties": False, **config})

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "avoids_ties": self.avoids_ties}
