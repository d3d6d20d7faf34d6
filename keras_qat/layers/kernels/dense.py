"""FULLY_CONNECTED."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.input_affine import INPUT_AFFINE
from keras_qat.layers.kernels.kernel_operator import KernelOperator, writes_bias
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.scheme import BYTE


class FullyConnected(KernelOperator):
    """FULLY_CONNECTED. The kernel of the layer is (inputs, outputs)."""

    code = "FULLY_CONNECTED"

    def apply(self, layer: Any, x, kernel):
        """Multiplies by the kernel."""
        del layer
        return ops.matmul(x, kernel)

    def accumulate(self, layer: Any, values, kernel):
        """Multiplies exactly, splitting the inputs where float32 would not be exact."""
        return accumulate.matmul(values, kernel, largest_product=layer.scheme.largest_summand)

    def takes_delegate(self, layer: Any) -> bool:
        """Returns whether XNNPACK takes the weights: those of an output fill whole bytes."""
        in_byte = BYTE // layer.scheme.weight_bits
        return super().takes_delegate(layer) or layer.kernel.shape[0] % in_byte == 0

    def add(self, layer: Any, builder, x):
        """Adds one FULLY_CONNECTED. The weights are (out, in). A bias is optional."""
        kernel, grid, bias = layer.lower_weights()
        weights = builder.weights(kernel.T, grid, axis=0)
        return builder.operator(
            self.code,
            (x, weights, builder.bias(bias, x, grid) if writes_bias(layer, x) else None),
            options={
                "keepNumDims": len(x.shape) != 2,
                "fusedActivationFunction": layer.fused_code(),
            },
        )


@register(maybe(INPUT_AFFINE), layer_of(keras.layers.Dense), maybe(BATCH_NORM), maybe(FUSED))
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
    kernel_operator = FullyConnected()
