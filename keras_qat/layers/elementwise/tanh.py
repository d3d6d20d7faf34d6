"""TANH."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.function_operators import Tabulated
from keras_qat.layers.elementwise.functions import function_named
from keras_qat.quantizers import Fixed


@register(function_named("tanh"))
@keras.saving.register_keras_serializable("keras_qat")
class QTanh(Tabulated):
    """Hyperbolic tangent: one TANH, whose output the quantization specification fixes to 1/128.

    LiteRT's kernels take any output scale. The kernels of microcontrollers take only 1/128 and
    zero point 0.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> round(float(QTanh()(ops.array([1.0]))[0]), 4)
    0.7616
    """

    operators = ("TANH",)
    avoids_ties = True
    has_lookup = True
    activation_bits = (8, 16)
    output_specification = Fixed(1 / 128, 0, wide_scale=2.0**-15)
    function = staticmethod(ops.tanh)

    def float_forward(self, inputs, training=None):
        """Computes the hyperbolic tangent in float."""
        del training
        return ops.tanh(inputs)

    def lower(self, builder, *inputs):
        """Adds one TANH."""
        return builder.operator("TANH", inputs)
