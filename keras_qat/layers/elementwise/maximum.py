"""MAXIMUM, MINIMUM and SELECT_V2: each element is an element of one of the two operands."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.arithmetic.requantize import quantize
from keras_qat.graph import Edge, Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import assign_copy
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.layers.elementwise.binary import Binary, operands_of, value_of
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.quantizers import Free, Grid, Shared
from keras_qat.scheme import Scheme

SELECTION = operation_named("Where")
# Values from here on stand for minus infinity.
MASKED = -1e4


def _ignored_below(count: int | None) -> float:
    """Returns how far below other scores `count` masked scores are ignored by an 8-bit softmax."""
    half_a_step = 1 / 512
    return math.log((count or 1) / half_a_step)


class Extreme(Binary):
    """Base class of the operators, whose operands and output have one range.

    A constant is rounded to the grid of the output. Its values may lie far beyond the values of the
    tensor. The range is therefore the range of the observed outputs, not of the constant.

    Constants of -10,000 or less stand for minus infinity: they mask scores before a softmax. The
    range does not reach them, only so far below the other values that a softmax over the last axis
    makes 0 of a masked score, and that all masked scores together do not change its other outputs
    by half a step.
    """

    output_specification = Shared()
    operator_code: str
    function: Any  # of two tensors

    def specifications(self):
        """Returns the specification of the output. With a constant the output is observed."""
        return {"output": Shared(None if self.constant is None else Free())}

    def float_forward(self, inputs, training=None):
        """Selects in float."""
        del training
        operands = self.in_order(tree.flatten(inputs), self.operand_tensor())
        return functools.reduce(self.function, operands)

    def training_forward(self, inputs):
        """Selects; if some values are from a constant, they are rounded to the grid."""
        y = self.float_forward(inputs, training=True)
        return y if self.constant is None else self.quantize_output(y)

    def observed_values(self, y):
        """Returns the output, with values that masked scores can have in its range."""
        if self.constant is None:
            return y
        is_masked = ops.logical_and(self.operand <= MASKED, y <= MASKED)
        kept = ops.where(is_masked, 0.0, y)  # every range contains 0
        least = ops.min(kept, axis=tuple(range(1, len(y.shape))), keepdims=True)
        return ops.where(is_masked, least - _ignored_below(y.shape[-1]), y)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Selects among the integers."""
        constant = self._centered_constant(output)
        return self.function(*self.in_order([x.values for x in inputs], constant))

    def lower(self, builder, *inputs):
        """Adds one operator."""
        constant = self.lowered_constant(builder, inputs[0])
        operands = *self.leading_operands(builder), *self.in_order(inputs, constant)
        return builder.operator(self.operator_code, operands)

    def lowered_constant(self, builder, like) -> Any:
        """Returns the constant as a LiteRT tensor with the rank of another; None without one."""
        values, grid = None, self.output_grid()
        if self.constant is not None and grid is not None:
            values = ops.convert_to_numpy(self._integers(grid)).astype(self._scheme().dtype)
        return self.lowered_operand(builder, like, values, builder.output_quantization)

    def leading_operands(self, builder) -> Sequence[Any]:
        """Returns the LiteRT tensors of the operator before the two operands."""
        del builder
        return ()

    def _centered_constant(self, grid: Grid):
        """Returns the constant as float32 whole numbers `q - zero_point`; None without one."""
        if self.constant is None:
            return None
        return ops.cast(self._integers(grid) - grid.zero_point, "float32")

    def _integers(self, grid: Grid):
        """Returns the constant in integers, zero point included."""
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return quantize(ops.convert_to_tensor(self.operand), *grid, *limits)


@register(any_of(layer_of(keras.layers.Maximum), operation_named("Maximum")))
@keras.saving.register_keras_serializable("keras_qat")
class QMaximum(Extreme):
    """The larger of two operands, element by element: one MAXIMUM.

    Args:
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QMaximum()([np.array([[1.0, -3.0]]), np.array([[0.0, 1.0]])]).numpy().tolist()
    [[1.0, 1.0]]
    """

    keras_class = keras.layers.Maximum
    operators = ("MAXIMUM",)
    operator_code = "MAXIMUM"
    function = staticmethod(ops.maximum)


@register(any_of(layer_of(keras.layers.Minimum), operation_named("Minimum")))
@keras.saving.register_keras_serializable("keras_qat")
class QMinimum(Extreme):
    """The smaller of two operands, element by element: one MINIMUM.

    Args:
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QMinimum()([np.array([[1.0, -3.0]]), np.array([[0.0, 1.0]])]).numpy().tolist()
    [[0.0, -3.0]]
    """

    keras_class = keras.layers.Minimum
    operators = ("MINIMUM",)
    operator_code = "MINIMUM"
    function = staticmethod(ops.minimum)


@register(SELECTION)
@keras.saving.register_keras_serializable("keras_qat")
class QWhere(Extreme):
    """One of two operands, element by element, selected by a constant condition: one SELECT_V2.

    Args:
        condition_shape: Shape of the condition, a weight that training does not change.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> layer = QWhere(condition_shape=(1, 2))
    >>> layer.build([(None, 2), (None, 2)])
    >>> layer.condition.assign([[1.0, 0.0]]) is not None
    True
    >>> layer([np.array([[1.0, -3.0]]), np.array([[0.0, 5.0]])]).numpy().tolist()
    [[1.0, 5.0]]
    """

    operators = ("SELECT_V2",)
    operator_code = "SELECT_V2"

    def __init__(self, *, condition_shape: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.condition_shape = tuple(condition_shape)
        self.condition: Any = None

    def function(self, a, b):
        """Selects from the first operand where the condition holds, from the second elsewhere."""
        return ops.where(ops.cast(self.condition, "bool"), a, b)

    def build(self, input_shape):
        """Creates the condition and the constant."""
        options = {"initializer": "ones", "trainable": False}
        self.condition = self.add_weight(name="condition", shape=self.condition_shape, **options)
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape that condition and operands broadcast to."""
        shape = super().compute_output_shape(input_shape)
        wider = (1,) * (len(shape) - len(self.condition_shape)) + self.condition_shape
        if len(wider) > len(shape) or wider[0] != 1:
            raise batch_moved(self.name, f"a condition of shape {self.condition_shape}")
        return broadcast_shape(shape, wider)

    def leading_operands(self, builder) -> Sequence[Any]:
        """Returns the condition, with the rank of the operands."""
        values = ops.convert_to_numpy(self.condition).astype(bool)
        ones = (1,) * (len(builder.output_shape) - values.ndim)
        return (builder.constant("condition", values.reshape(ones + values.shape)),)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer; a `QSelect` if the model computes the condition."""
        is_computed = isinstance(operands_of(node)[0], Edge)
        return QSelect.from_match(node, scheme) if is_computed else super().from_match(node, scheme)

    @classmethod
    def config_of_match(cls, node: Node) -> dict[str, Any]:
        """Returns the configuration for `ops.where` with a constant condition."""
        shape = value_of(operands_of(node)[0]).shape
        return {**super().config_of_match(node), "condition_shape": shape}

    @classmethod
    def operands_of(cls, node: Node) -> list[Any]:
        """Returns the two operands, without the condition."""
        return operands_of(node)[1:]

    def carry_weights(self, node: Node) -> None:
        """Copies the condition and the constant."""
        super().carry_weights(node)
        assign_copy(self.condition, value_of(operands_of(node)[0]).astype("float32"))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "condition_shape": self.condition_shape}


@keras.saving.register_keras_serializable("keras_qat")
class QSelect(Extreme):
    """One of two operands, element by element, selected by a tensor of booleans: one SELECT_V2.

    Args:
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> condition, a, b = np.array([[True, False]]), np.array([[1.0, -3.0]]), np.array([[0.0, 5.0]])
    >>> QSelect()([condition, a, b]).numpy().tolist()
    [[1.0, 5.0]]
    """

    operators = ("SELECT_V2",)
    plain_inputs = ("bool",)

    def float_forward(self, inputs, training=None):
        """Selects in float."""
        del training
        condition, *values = inputs
        return ops.where(condition, *self.in_order(values, self.operand_tensor()))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Selects among the integers."""
        condition, *operands = (x.values for x in inputs)
        return ops.where(condition, *self.in_order(operands, self._centered_constant(output)))

    def lower(self, builder, *inputs):
        """Adds one SELECT_V2."""
        condition, *operands = inputs
        operands = self.in_order(operands, self.lowered_constant(builder, condition))
        return builder.operator("SELECT_V2", (condition, *operands))

    @classmethod
    def operands_of(cls, node: Node) -> list[Any]:
        """Returns the two operands, without the condition."""
        return operands_of(node)[1:]

    def _shapes(self, input_shape):
        """Returns the shapes of the condition and of both operands."""
        condition, *shapes = map(tuple, input_shape)
        if self.constant is None:
            return [condition, *shapes]
        return [condition, *self._with_constant(shapes[0])]

    def _check_shapes(self, shapes) -> None:
        condition, *operands = shapes
        is_alike = len(condition) == len(operands[0])
        super()._check_shapes(operands if is_alike else [condition, operands[0]])
