"""TRANSPOSE_CONV."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.sequences import image_shape, planar
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.kernels.kernel_operator import writes_bias
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.layers.kernels.windows import WindowOperator, window_options
from keras_qat.scheme import Scheme


class TransposedConvolution(WindowOperator):
    """TRANSPOSE_CONV. The kernel of the layer is (*window, outputs, inputs)."""

    code = "TRANSPOSE_CONV"
    channel_axes = (-2,)
    needs_fixed_batch = True

    def check(self, node: Node, scheme: Scheme | None) -> None:
        """Raises for a dilated kernel, and for sizes that the operator does not compute."""
        if max(node.head.dilation_rate) > 1:
            raise UnsupportedLayerError(
                "LiteRT's TRANSPOSE_CONV has no dilation.",
                layer=node.name,
                received=f"dilation_rate={tuple(node.head.dilation_rate)}",
                expected="dilation_rate=1",
                fix="Use a larger kernel, or a dilated convolution that is not transposed.",
            )
        super().check(node, scheme)
        _check_output(node)

    def apply(self, layer: Any, x, kernel):
        """Applies the transposed convolution in float."""
        return ops.conv_transpose(
            x,
            kernel,
            strides=list(layer.strides),
            padding=layer.padding,
            output_padding=layer.output_padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    def accumulate(self, layer: Any, values, kernel):
        """Sums exactly, splitting input channels where float32 would not be exact."""
        return accumulate.conv_transpose(
            values,
            kernel,
            convolve=functools.partial(self.apply, layer),
            strides=layer.strides,
            largest_product=layer.scheme.largest_summand,
        )

    def spread_inputs(self, layer: Any, values):
        """Shapes one value for each input channel, the last dimension of the kernel."""
        del layer
        return values

    def to_matrices(self, layer: Any, kernel: np.ndarray) -> np.ndarray:
        """Returns one matrix, with the outputs as the last dimension."""
        del layer
        return kernel.swapaxes(-1, -2).reshape(1, -1, kernel.shape[-2])

    def from_matrices(self, layer: Any, matrices: np.ndarray) -> np.ndarray:
        """Returns the kernel of `to_matrices`."""
        window, inputs = layer.kernel.shape[:-2], layer.kernel.shape[-1]
        return matrices.reshape(*window, inputs, -1).swapaxes(-1, -2)

    def takes_delegate(self, layer: Any) -> bool:
        """Returns whether the batch is fixed: the operand for the output's shape is constant."""
        return layer.fixed_batch or layer.get_build_config()["input_shape"][0] is not None

    def add_to_image(self, layer: Any, builder, x, **output):
        """Adds one TRANSPOSE_CONV. The weights are (out, height, width, in), the bias optional."""
        kernel, grid, bias = layer.lower_weights()
        kernel = kernel.reshape(*planar(kernel.shape[:-2]), *kernel.shape[-2:])
        weights = builder.weights(np.moveaxis(kernel, -2, 0), grid, axis=0)
        shape = _output_shape(builder, x, image_shape(builder.output_shape))
        return builder.operator(
            self.code,
            (shape, weights, x, builder.bias(bias, x, grid) if writes_bias(layer, x) else None),
            options=window_options(layer),
            **output,
        )


def _check_output(node: Node) -> None:
    """Checks that the output size is one from which the convolution computes the input size."""
    head = node.head
    shape = head.get_build_config()["input_shape"]
    sizes = [[int(size or 0) for size in each[1:-1]] for each in (shape, node.shapes[0])]
    for before, after, window, stride in zip(*sizes, head.kernel_size, head.strides, strict=True):
        taps = 1 if head.padding == "same" else window
        if before != (after - taps) // stride + 1:
            raise UnsupportedLayerError(
                "LiteRT's TRANSPOSE_CONV needs an output size from which a convolution computes "
                "the input size.",
                layer=node.name,
                received=f"output_padding={head.output_padding}: {before} become {after}",
                expected=f"an output that a stride of {stride} takes back to {before}",
                fix="Leave `output_padding` out, and crop or pad the output.",
            )


def _output_shape(builder, x, shape):
    """Adds the output shape as an operand, which becomes a constant for a fixed batch size."""
    known = builder.operator(
        "SHAPE",
        (x,),
        part="input_shape",
        shape=(4,),
        dtype="int32",
        options={"outType": "INT32"},
    )
    larger = [after - before for before, after in zip(x.shape[1:], shape[1:], strict=True)]
    return builder.operator(
        "ADD",
        (known, builder.constant("larger", np.array([0, *larger], "int32"))),
        part="output_shape",
        shape=(4,),
        dtype="int32",
    )


@register(layer_of(keras.layers.Conv2DTranspose), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv2DTranspose(WeightedLayer, keras.layers.Conv2DTranspose):
    """Transposed convolution with folded batch normalization: one TRANSPOSE_CONV.

    A SHAPE and an ADD of int32 compute the shape of the output, unless the batch size is fixed.

    Args:
        *args: Arguments of `keras.layers.Conv2DTranspose`.
        batch_norm: Whether a batch normalization follows, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Conv2DTranspose`.

    Example:
    >>> layer = QConv2DTranspose(8, 3, strides=2, padding="same", batch_norm=True)
    >>> layer(np.ones((1, 5, 5, 3), "float32")).shape
    TensorShape([1, 10, 10, 8])
    """

    operators = ("TRANSPOSE_CONV", "SHAPE", "ADD")
    kernel_operator = TransposedConvolution()


@register(layer_of(keras.layers.Conv1DTranspose), maybe(BATCH_NORM), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QConv1DTranspose(WeightedLayer, keras.layers.Conv1DTranspose):
    """Transposed 1D convolution: one TRANSPOSE_CONV between two RESHAPEs.

    Args:
        *args: Arguments of `keras.layers.Conv1DTranspose`.
        batch_norm: Whether a batch normalization follows, or its configuration.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Conv1DTranspose`.

    Example:
    >>> layer = QConv1DTranspose(8, 3, strides=2, batch_norm=True)
    >>> layer(np.ones((1, 5, 3), "float32")).shape
    TensorShape([1, 11, 8])
    """

    operators = ("TRANSPOSE_CONV", "SHAPE", "ADD", "RESHAPE")
    kernel_operator = TransposedConvolution()
