"""ARG_MAX and ARG_MIN: the positions of the largest and the smallest values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Node, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.scheme import Scheme


class Position(QuantizedLayer):
    """Base class of operators that return a position on one axis, as a plain int32 number.

    Of equal values the first one counts, in Keras as in LiteRT's kernels.

    Args:
        axis: The axis, counted from the first axis, which is not allowed.
        keepdims: Whether the axis is kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        operator_code: The LiteRT operator.
        function: The function of `keras.ops`.
    """

    plain_dtype = "int32"
    output_specification = None
    operator_code: str
    function: Any

    def __init__(
        self,
        axis: int,
        keepdims: bool = False,
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.axis, self.keepdims = int(axis), bool(keepdims)

    def compute_output_shape(self, input_shape):
        """Returns the shape without the axis, or with a size of 1 for it."""
        kept = (1,) if self.keepdims else ()
        return (*input_shape[: self.axis], *kept, *input_shape[self.axis + 1 :])

    def float_forward(self, inputs, training=None):
        """Finds the positions. They have no gradient."""
        del training
        return self.function(inputs, axis=self.axis, keepdims=self.keepdims)

    def training_forward(self, inputs):
        """Finds the positions, which are not rounded."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Any):
        """Finds the positions among the integers."""
        del output
        return self.float_forward(inputs[0].values)

    def lower(self, builder, *inputs):
        """Adds one operator, and a RESHAPE if the axis is kept."""
        (x,) = inputs
        found = builder.operator(
            self.operator_code,
            (x, builder.constant("axis", np.array(self.axis, "int32"))),
            part="found" if self.keepdims else None,
            shape=(*x.shape[: self.axis], *x.shape[self.axis + 1 :]),
            options={"outputType": "INT32"},
        )
        return builder.reshape(found, builder.output_shape) if self.keepdims else found

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer.

        Raises:
            UnsupportedLayerError: If the position is among all samples.
        """
        axis, keepdims = node.head.axis, bool(node.head.keepdims)
        if axis is None:
            raise batch_moved(node.name, "axis=None, all axes")
        rank = len(node.shapes[0]) + (0 if keepdims else 1)
        if axis % rank == 0:
            raise batch_moved(node.name, f"axis={axis} of {rank} axes")
        return cls(axis % rank, keepdims, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "axis": self.axis, "keepdims": self.keepdims}


@register(operation_named("Argmax"))
@keras.saving.register_keras_serializable("keras_qat")
class QArgMax(Position):
    """Position of the largest value on one axis, `ops.argmax`: one ARG_MAX.

    Args:
        axis: The axis, counted from the first axis, which is not allowed.
        keepdims: Whether the axis is kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QArgMax(1)(np.array([[1.0, 7.0, 7.0], [3.0, 2.0, 1.0]])).numpy().tolist()
    [1, 0]
    """

    operators = ("ARG_MAX", "RESHAPE")
    operator_code = "ARG_MAX"
    function = staticmethod(ops.argmax)


@register(operation_named("Argmin"))
@keras.saving.register_keras_serializable("keras_qat")
class QArgMin(Position):
    """Position of the smallest value on one axis, `ops.argmin`: one ARG_MIN.

    Args:
        axis: The axis, counted from the first axis, which is not allowed.
        keepdims: Whether the axis is kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QArgMin(1)(np.array([[4.0, 1.0, 1.0], [3.0, 2.0, 1.0]])).numpy().tolist()
    [1, 2]
    """

    operators = ("ARG_MIN", "RESHAPE")
    operator_code = "ARG_MIN"
    function = staticmethod(ops.argmin)
