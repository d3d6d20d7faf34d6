"""GELU."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic.tables import erf_gelu, tanh_gelu
from keras_qat.graph import Node
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import function_named, function_of
from keras_qat.scheme import Scheme


@register(function_named("gelu"))
@keras.saving.register_keras_serializable("keras_qat")
class QGelu(Tabulated):
    """Gaussian error linear unit: one GELU, which microcontrollers lack.

    Args:
        approximate: Whether to use the approximation by a hyperbolic tangent.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> round(float(QGelu()(ops.array([1.0]))[0]), 4)
    0.8413
    """

    operators = ("GELU",)
    avoids_ties = True
    has_lookup = True

    def __init__(
        self, approximate: bool = False, *, scheme: str | Scheme | None = None, **kwargs: Any
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.approximate = bool(approximate)

    @property
    def function(self):
        """Returns the function of a float64 tensor."""
        return tanh_gelu if self.approximate else erf_gelu

    def float_forward(self, inputs, training=None):
        """Computes the function in float."""
        del training
        return ops.gelu(inputs, approximate=self.approximate)

    def lower(self, builder, *inputs):
        """Adds one GELU."""
        options = {"approximate": self.approximate}
        return builder.operator("GELU", inputs, options=options)

    @classmethod
    def arguments_of(cls, node: Node) -> dict[str, Any]:
        """Returns the constructor's arguments for an operation."""
        function = function_of(node.head)
        return {} if function is None else dict(function.options)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "approximate": self.approximate}
