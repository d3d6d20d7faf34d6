"""Operators with a kernel that slides over the steps of a sequence or over an image."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.graph import Node
from keras_qat.layers.core.sequences import lower_on_image, planar
from keras_qat.layers.kernels.kernel_operator import KernelOperator
from keras_qat.layers.moving.reshape import check_channels_last
from keras_qat.scheme import Scheme


class WindowOperator(KernelOperator):
    """An operator for images. A sequence is an image of one row, between two RESHAPEs."""

    def check(self, node: Node, scheme: Scheme | None) -> None:
        """Raises for `channels_first`."""
        check_channels_last(node.name, node.head.data_format)

    def add(self, layer: Any, builder, x):
        """Adds the operator, between two RESHAPEs if the input is a sequence."""

        def add_to_image(image, **output):
            return self.add_to_image(layer, builder, image, **output)

        return lower_on_image(builder, x, add_to_image)

    def add_to_image(self, layer: Any, builder, x, **output):
        """Adds the operator for an image.

        Args:
            layer: The layer.
            builder: A `keras_qat.lowering.Builder`.
            x: LiteRT tensor of rank 4.
            **output: Arguments of the builder about the operator's output.

        Returns:
            The LiteRT tensor of the output, of rank 4.
        """
        raise NotImplementedError


def taken_steps(layer: Any, x) -> tuple[Any, list[int]]:
    """Returns what a convolution reads of its input, and its strides there.

    A kernel of one tap reads only some values, which are taken first. This is less work. On
    processors with AVX-512 TensorFlow's gradient of such a kernel writes outside of its memory.

    The mean of one value takes the values: TensorFlow needs a fifth of the time for it and its
    gradient that it needs for a slice with steps.

    Args:
        layer: The layer.
        x: float32 tensor, the padded input.
    """
    strides = list(layer.strides)
    if max(layer.kernel_size) > 1 or max(strides) == 1:
        return x, strides
    ones = [1] * len(strides)
    return ops.average_pool(x, ones, strides, "valid", layer.data_format), ones


def window_options(layer: Any) -> dict[str, Any]:
    """Returns the options that all operators with a sliding kernel have."""
    vertical, horizontal = planar(layer.strides)
    return {
        "padding": "SAME" if layer.padding == "same" else "VALID",
        "strideH": vertical,
        "strideW": horizontal,
        "fusedActivationFunction": layer.fused_code(),
    }


def dilation_options(layer: Any) -> dict[str, Any]:
    """Returns the options for the distance between the taps of a kernel."""
    vertical, horizontal = planar(layer.dilation_rate)
    return {"dilationHFactor": vertical, "dilationWFactor": horizontal}
