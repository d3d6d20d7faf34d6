"""The LiteRT operator of a layer with a kernel: how it sums, and how it is written."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from keras_qat.arithmetic import accumulate
from keras_qat.graph import Node
from keras_qat.scheme import Scheme


class KernelOperator:
    """The linear part of a `WeightedLayer`, as one LiteRT operator.

    An object has no state: each method takes the layer, whose arguments it reads.

    Attributes:
        code: Name of the operator.
        channel_axes: The dimensions of the layer's kernel that number its output channels,
            negative.
        needs_fixed_batch: Whether fast kernels take it only in a file for one batch size.
    """

    code: str
    channel_axes: tuple[int, ...] = (-1,)
    needs_fixed_batch: bool = False

    def check(self, node: Node, scheme: Scheme | None) -> None:
        """Checks that the operator can compute a Keras layer.

        Args:
            node: The Keras layer and the operations fused with it.
            scheme: The scheme, or None for a float layer.

        Raises:
            UnsupportedLayerError: If it cannot.
        """

    def apply(self, layer: Any, x, kernel):
        """Computes the sums in float: float32 tensors in, float32 tensor out."""
        raise NotImplementedError

    def accumulate(self, layer: Any, values, kernel):
        """Computes the sums exactly.

        Args:
            layer: The layer.
            values: float32 whole numbers `q - zero_point`.
            kernel: float32 whole numbers, the quantized kernel.

        Returns:
            The accumulators, for `arithmetic.accumulate.whole`.
        """
        raise NotImplementedError

    def spread_inputs(self, layer: Any, values):
        """Shapes one value for each input channel to broadcast against the kernel.

        Args:
            layer: The layer.
            values: numpy array `(channels,)`.

        Returns:
            numpy array. The kernel is `(*window, in, out)`, unless the operator has another layout.
        """
        del layer
        return values[:, None]

    def to_matrices(self, layer: Any, kernel: np.ndarray) -> np.ndarray:
        """Returns a kernel as matrices `(groups, products, outputs)`.

        Args:
            layer: The layer.
            kernel: Array of the shape of the kernel, with any number of output channels.
        """
        del layer
        return kernel.reshape(1, -1, kernel.shape[-1])

    def from_matrices(self, layer: Any, matrices: np.ndarray) -> np.ndarray:
        """Returns the kernel of `to_matrices`, also for another number of outputs in each group."""
        return matrices.reshape(*layer.kernel.shape[:-1], -1)

    def dtype(self, layer: Any) -> str:
        """Returns the type that the rule of the kernels depends on: that of packed weights."""
        return layer.scheme.weight_dtype if layer.packs_weights else layer.scheme.dtype

    def takes_delegate(self, layer: Any) -> bool:
        """Returns whether fast kernels that have the operator take it with the layer's shapes."""
        return not layer.packs_weights

    def add(self, layer: Any, builder, x):
        """Adds the operator to a LiteRT model.

        Args:
            layer: The layer.
            builder: A `keras_qat.lowering.Builder`.
            x: LiteRT tensor of the input.

        Returns:
            The LiteRT tensor of the output.
        """
        raise NotImplementedError


def channel_sums(operator: KernelOperator, layer: Any, values, kernel):
    """Computes the sums of an operator that sums each channel by itself, exactly.

    Args:
        operator: The operator.
        layer: The layer.
        values: float32 whole numbers `q - zero_point`.
        kernel: float32 whole numbers, the quantized kernel.

    Returns:
        The accumulators, for `arithmetic.accumulate.whole`.
    """
    return accumulate.depthwise(
        values,
        kernel,
        convolve=functools.partial(operator.apply, layer),
        largest_product=layer.scheme.largest_summand,
    )


def writes_bias(layer: Any, x: Any) -> bool:
    """Returns whether an operator whose bias is optional gets one.

    Without a bias of 64 bits, kernels sum products of 16-bit activations in 32 bits.

    Args:
        layer: The layer.
        x: LiteRT tensor of the input.
    """
    return layer.adds_bias or x.dtype == "int16"
