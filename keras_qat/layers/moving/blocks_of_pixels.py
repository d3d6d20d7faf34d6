"""DEPTH_TO_SPACE and SPACE_TO_DEPTH: blocks of pixels as channels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.graph import Node, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import check_channels_last
from keras_qat.scheme import Scheme


class MovesBlocks(MovesValues):
    """Base class of operators that move blocks of pixels to channels, or back.

    Args:
        block_size: Height and width of a block.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        function: The function of `keras.ops`.
    """

    function: Any

    def __init__(self, block_size: int, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.block_size = int(block_size)

    def compute_output_shape(self, input_shape):
        """Returns the shape that the function makes."""
        x = keras.KerasTensor(tuple(input_shape))
        return type(self).function(x, self.block_size, data_format="channels_last").shape

    def float_forward(self, inputs, training=None):
        """Moves the values."""
        del training
        return type(self).function(inputs, self.block_size, data_format="channels_last")

    def lower(self, builder, *inputs):
        """Adds one operator."""
        return builder.operator(self.operators[0], inputs, options={"blockSize": self.block_size})

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for images with channels last."""
        check_channels_last(node.name, node.head.data_format)
        return cls(node.head.block_size, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "block_size": self.block_size}


@register(operation_named("DepthToSpace"))
@keras.saving.register_keras_serializable("keras_qat")
class QDepthToSpace(MovesBlocks):
    """Makes blocks of pixels of channels, `ops.depth_to_space`: one DEPTH_TO_SPACE.

    Args:
        block_size: Height and width of a block.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QDepthToSpace(2)(np.arange(4.0).reshape(1, 1, 1, 4)).numpy().squeeze().tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """

    operators = ("DEPTH_TO_SPACE",)
    function = staticmethod(ops.depth_to_space)


@register(operation_named("SpaceToDepth"))
@keras.saving.register_keras_serializable("keras_qat")
class QSpaceToDepth(MovesBlocks):
    """Makes channels of blocks of pixels, `ops.space_to_depth`: one SPACE_TO_DEPTH.

    Args:
        block_size: Height and width of a block.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QSpaceToDepth(2)(np.arange(4.0).reshape(1, 2, 2, 1)).numpy().squeeze().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """

    operators = ("SPACE_TO_DEPTH",)
    function = staticmethod(ops.space_to_depth)
