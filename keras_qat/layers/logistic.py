"""LOGISTIC."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.arithmetic.logistic import STEPS_IN_ONE, logistic_table
from keras_qat.layers.functions import function_named
from keras_qat.layers.registry import register
from keras_qat.layers.tabulated import Tabulated
from keras_qat.quantizers import FixedParameters, Grid


@register(function_named("sigmoid"))
@keras.saving.register_keras_serializable("keras_qat")
class QSigmoid(Tabulated):
    """Sigmoid: one LOGISTIC, whose output LiteRT fixes to 1/256 and -128.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> float(QSigmoid()(ops.array([0.0]))[0])
    0.5
    """

    operators = ("LOGISTIC",)
    fixed_parameters = FixedParameters(1 / STEPS_IN_ONE, -128)

    def float_forward(self, inputs, training=None):
        """Computes the sigmoid in float."""
        del training
        return ops.sigmoid(inputs)

    def table(self, grid: Grid, output: Grid):
        """Computes the kernel's own table."""
        return logistic_table(*grid, output.zero_point, **self.limits())

    def lower(self, builder, *inputs):
        """Adds one LOGISTIC."""
        return builder.operator("LOGISTIC", inputs, version=2)
