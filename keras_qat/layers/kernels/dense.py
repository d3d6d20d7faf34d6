"""FULLY_CONNECTED."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED, function_name
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.accumulators import requantize_dense
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.weighted import IntegerWeights, WeightedLayer
from keras_qat.quantizers import Grid


@register(layer_of(keras.layers.Dense), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QDense(WeightedLayer, keras.layers.Dense):
    """Dense layer with folded batch normalization and fused activation: one FULLY_CONNECTED.

    Weights are quantized per output channel, or as the scheme defines. Inputs may have any rank.
    The last axis is contracted.

    Args:
        *args: Arguments of `keras.layers.Dense`.
        batch_norm: Whether a batch normalization follows, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Dense`.

    Example:
    >>> import numpy as np
    >>> QDense(3, activation="relu")(np.ones((2, 7, 4), "float32")).shape
    TensorShape([2, 7, 3])
    """

    operators = ("FULLY_CONNECTED",)

    def apply_kernel(self, x, kernel):
        """Multiplies by the kernel."""
        return ops.matmul(x, kernel)

    def accumulate(self, centered, kernel):
        """Multiplies exactly, splitting the inputs where float32 would not be exact."""
        largest = self._scheme().largest_product
        return accumulate.matmul(centered, kernel, largest_product=largest)

    def requantize(self, accumulators, weights: IntegerWeights, input_scale, output: Grid):
        """Scales in double precision, as the reference FULLY_CONNECTED does."""
        tensors = accumulators, weights.bias, input_scale, weights.kernel_scale, *output
        limits = {"activation": function_name(self.activation), "scheme": self._scheme()}
        return requantize_dense(*tensors, **limits)

    def lower(self, builder, *inputs):
        """Adds one FULLY_CONNECTED. The kernel is stored as (out, in). A bias is optional."""
        kernel, grid, bias = self.lower_weights()
        keeps_rank = len(inputs[0].shape) != 2
        return builder.operator(
            "FULLY_CONNECTED",
            (
                inputs[0],
                builder.weights(kernel.T, grid, axis=0),
                builder.bias(bias, inputs[0], grid) if self.adds_bias else None,
            ),
            options={
                "keepNumDims": keeps_rank,
                "fusedActivationFunction": self.fused_code(),
            },
        )
