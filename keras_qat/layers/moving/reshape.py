"""RESHAPE."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.scheme import Scheme

RESHAPE_OPERATION = operation_named("Reshape", "Squeeze", "ExpandDims")


@register(layer_of(keras.layers.Flatten))
@keras.saving.register_keras_serializable("keras_qat")
class QFlatten(MovesValues, keras.layers.Flatten):
    """Flattens all axes but the first: one RESHAPE.

    Args:
        *args: Arguments of `keras.layers.Flatten`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Flatten`.
    """

    activation_bits = (8, 16)
    operators = ("RESHAPE",)

    def build(self, input_shape):
        """Checks the layout."""
        check_channels_last(self.name, self.data_format)
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one RESHAPE."""
        return builder.reshape(inputs[0], builder.output_shape)


@register(any_of(layer_of(keras.layers.Reshape), RESHAPE_OPERATION))
@keras.saving.register_keras_serializable("keras_qat")
class QReshape(MovesValues, keras.layers.Reshape):
    """Reshapes samples: one RESHAPE.

    The layer also replaces `ops.reshape`, `ops.squeeze` and `ops.expand_dims`, if the batch stays
    the first axis. Axes of a sample may be merged into the batch, such as the windows of an image,
    and split from it again.

    Args:
        *args: Arguments of `keras.layers.Reshape`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Reshape`.

    Example:
    >>> QReshape((2,))(ops.array([[1.0, 2.0, 3.0, 4.0]])).numpy().tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """

    activation_bits = (8, 16)
    operators = ("RESHAPE",)
    moves_batch = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.built = False  # unlike Keras's, since `build` looks at the shape

    def build(self, input_shape):
        """Notes whether axes of a sample are merged into the batch, or split from it."""
        before, after = math.prod(input_shape[1:]), math.prod(self.target_shape)
        self.moves_batch = -1 not in self.target_shape and before != after
        super().build(input_shape)

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns a `keras.layers.Reshape`; None if the batch changes, as no Keras layer does."""
        return None if self.moves_batch else super().layers_in_keras()

    def compute_output_shape(self, input_shape):
        """Returns the shape. The batch is larger if axes of a sample are merged into it."""
        before, after = math.prod(input_shape[1:]), math.prod(self.target_shape)
        if -1 in self.target_shape or before == after:
            return super().compute_output_shape(input_shape)
        if before % after and after % before:
            raise batch_moved(self.name, f"{before} values of a sample become {after}")
        batch = input_shape[0]
        return (None if batch is None else batch * before // after, *self.target_shape)

    def float_forward(self, inputs, training=None):
        """Reshapes the samples."""
        del training
        shape = self.compute_output_shape(tuple(inputs.shape))
        return ops.reshape(inputs, (-1, *shape[1:]))

    def lower(self, builder, *inputs):
        """Adds one RESHAPE."""
        return builder.reshape(inputs[0], builder.output_shape)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer from the shape of the node's output.

        Raises:
            UnsupportedLayerError: If the batch is not the first axis.
        """
        return cls(sample_sizes(node), name=node.name, scheme=scheme)


def sample_sizes(node: Node) -> tuple[int, ...]:
    """Returns the shape of a sample of a node's output.

    Args:
        node: A node whose input has no unknown size but the batch's.

    Returns:
        The sizes of all axes but the first.

    Raises:
        UnsupportedLayerError: If a size is not known, or the batch is no longer the first axis.
    """
    shape = node.shapes[0]
    sizes = tuple(size for size in shape[1:] if size is not None)
    if not shape or (len(sizes) < len(shape) - 1 and shape[0] is not None):
        raise batch_moved(node.name, f"an output of shape {shape}")
    if len(sizes) < len(shape) - 1:
        known = ", ".join("n" if size is None else str(size) for size in shape[1:])
        raise UnsupportedLayerError(
            "A size of the output is not known, because -1 stands for another axis than the batch.",
            layer=node.name,
            received=f"an output of shape {shape}",
            expected="-1 for the batch, and numbers for all other sizes",
            fix=f"Write `keras.ops.reshape(x, (-1, {known}))`, with a number for each n.",
        )
    return sizes


def batch_moved(name: str, received: str) -> UnsupportedLayerError:
    """Returns the error for an operation that moves or changes the first axis.

    Args:
        name: Name of the layer.
        received: The change of the axis.
    """
    return UnsupportedLayerError(
        "The operation moves, cuts or merges the batch axis, whose size is unknown in a file.",
        layer=name,
        received=received,
        expected="the first axis as it is",
        fix="Apply it to the other axes only.",
    )


def check_channels_last(name: str, data_format: str | None) -> None:
    """Raises if the layout is not channels last.

    Args:
        name: Name of the layer.
        data_format: Layout of the layer.

    Raises:
        UnsupportedLayerError: If the layout is not `"channels_last"`.
    """
    if data_format != "channels_last":
        raise UnsupportedLayerError(
            "Models for LiteRT must have channels last.",
            layer=name,
            received=f"data_format='{data_format}'",
            expected="data_format='channels_last'",
            fix="Define the model with data_format='channels_last', or add 'move_channels_last' to "
            "`rewrites`.",
        )
