"""ELU."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.arithmetic.tables import elu
from keras_qat.graph import Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import function_named, function_of
from keras_qat.layers.elementwise.lookup import QLookup
from keras_qat.scheme import Scheme


@register(function_named("elu", "celu"))
@keras.saving.register_keras_serializable("keras_qat")
class QElu(Tabulated):
    """Exponential linear unit, or celu, with an alpha of 1: one ELU. Other alphas use a lookup.

    LiteRT's reference kernels lack ELU. Inference equals the kernel of LiteRT's default runtime,
    which makes the same table as the kernel of microcontrollers.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> round(float(QElu()(ops.array([-1.0]))[0]), 4)
    -0.6321
    """

    operators = ("ELU",)
    avoids_ties = True
    has_lookup = True
    function = staticmethod(elu)

    def float_forward(self, inputs, training=None):
        """Computes the function in float."""
        del training
        return ops.elu(inputs)

    def lower(self, builder, *inputs):
        """Adds one ELU."""
        return builder.operator("ELU", inputs)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, or a lookup for another alpha or if the type has no ELU."""
        function = function_of(node.head)
        if scheme is None or dict(function.options if function else ()).get("alpha", 1.0) != 1.0:
            return QLookup.from_match(node, scheme)
        return super().from_match(node, scheme)
