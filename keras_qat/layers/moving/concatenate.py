"""CONCATENATION and PACK."""

from __future__ import annotations

import keras
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import layer_of_chain
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


class _Joins(MovesValues):
    """Base class of both operators: several tensors of one range become one."""

    activation_bits = (8, 16)
    axis: int

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Joins the integers as the float forward joins values."""
        del output
        return self.float_forward([x.values for x in inputs], training=False)

    def _position(self, rank: int) -> int:
        """Returns the axis, counted from the front, in a tensor of the given rank."""
        axis = self.axis + rank if self.axis < 0 else self.axis
        if axis == 0:
            raise batch_moved(self.name, f"axis={self.axis}")
        return axis

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, if all inputs are tensors."""
        leaves = tree.flatten(node.arguments)
        if not all(isinstance(leaf, Edge) for leaf in leaves) or len(leaves) < 2:
            raise UnsupportedLayerError(
                "Only two or more tensors that depend on the model's inputs can be joined.",
                layer=node.name,
                received=f"{len(node.inputs)} such tensor(s) among {len(leaves)}",
                fix="Leave out the constant ones.",
            )
        given = {"name": node.name, "scheme": scheme, "axis": node.head.axis}
        return layer_of_chain(cls, node.operations, **given)


@register(any_of(layer_of(keras.layers.Concatenate), operation_named("Concatenate")))
@keras.saving.register_keras_serializable("keras_qat")
class QConcatenate(_Joins, keras.layers.Concatenate):
    """Concatenates tensors: one CONCATENATION, with one range for all its tensors.

    Args:
        *args: Arguments of `keras.layers.Concatenate`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Concatenate`.
    """

    operators = ("CONCATENATION",)

    def build(self, input_shape):
        """Checks the axis."""
        self._position(len(input_shape[0]))
        super().build(input_shape)

    def lower(self, builder, *inputs):
        """Adds one CONCATENATION."""
        return builder.operator(
            "CONCATENATION",
            inputs,
            options={"axis": self._position(len(builder.output_shape))},
        )


@register(operation_named("Stack"))
@keras.saving.register_keras_serializable("keras_qat")
class QStack(_Joins):
    """Stacks tensors along a new axis: one PACK, with one range for all its tensors.

    Args:
        axis: Position of the new axis in the output.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    operators = ("PACK",)

    def __init__(self, axis: int, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.axis = axis

    def build(self, input_shape):
        """Checks the axis."""
        self._position(len(input_shape[0]) + 1)
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape with the new axis."""
        shape = list(input_shape[0])
        shape.insert(self._position(len(shape) + 1), len(input_shape))
        return tuple(shape)

    def float_forward(self, inputs, training=None):
        """Stacks the tensors."""
        del training
        return ops.stack(inputs, self.axis)

    def lower(self, builder, *inputs):
        """Adds one PACK."""
        return builder.operator(
            "PACK",
            inputs,
            options={
                "axis": self._position(len(builder.output_shape)),
                "valuesCount": len(inputs),
            },
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "axis": self.axis}
