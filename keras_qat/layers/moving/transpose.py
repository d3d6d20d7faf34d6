"""TRANSPOSE."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.scheme import Scheme

_MOST_AXES = 8  # limit of the kernel

TRANSPOSE = any_of(
    layer_of(keras.layers.Permute), operation_named("Transpose", "Swapaxes", "Moveaxis")
)


def axes_of(node: Node) -> tuple[int, ...]:
    """Returns the input axis of each output axis of a transposition.

    Args:
        node: A node of an operation that `TRANSPOSE` matches.
    """
    # The input's axes have the sizes 0, 1, 2 and so on, so the output's shape is the permutation.
    sizes = keras.KerasTensor(range(len(node.shapes[0])))
    return tuple(node.head.compute_output_spec(sizes).shape)


@register(TRANSPOSE)
@keras.saving.register_keras_serializable("keras_qat")
class QTranspose(MovesValues):
    """Permutes the axes but the first: one TRANSPOSE.

    Args:
        axes: The input axis of each output axis; 0 comes first.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QTranspose((0, 2, 1))(np.array([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()
    [[[1.0, 3.0], [2.0, 4.0]]]
    """

    activation_bits = (8, 16)
    operators = ("TRANSPOSE",)

    def __init__(self, axes: Sequence[int], *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.axes = tuple(axes)
        if self.axes[0] != 0:
            raise batch_moved(self.name, f"axes {self.axes}")
        if len(self.axes) > _MOST_AXES:
            raise UnsupportedLayerError(
                "LiteRT permutes no more than eight axes.",
                layer=self.name,
                received=f"{len(self.axes)} axes",
                expected=f"at most {_MOST_AXES}, with the batch",
                fix="Merge axes that stay together with `keras.ops.reshape` before.",
            )

    def compute_output_shape(self, input_shape):
        """Returns the permuted shape."""
        return tuple(input_shape[axis] for axis in self.axes)

    def float_forward(self, inputs, training=None):
        """Permutes the axes."""
        del training
        return ops.transpose(inputs, self.axes)

    def lower(self, builder, *inputs):
        """Adds one TRANSPOSE."""
        return builder.operator(
            "TRANSPOSE",
            (inputs[0], builder.constant("axes", np.array(self.axes, "int32"))),
        )

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for any operation that permutes axes."""
        return cls(axes_of(node), name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "axes": self.axes}
