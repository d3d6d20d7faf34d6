"""ADD, SUB and MUL."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.backend import compiled
from keras_qat.graph import any_of, layer_of, maybe, operation_named
from keras_qat.layers.core.activation_names import FUSED, function_name
from keras_qat.layers.core.constants import centered_constant, stored
from keras_qat.layers.core.fused import activation_limits, apply_activation, fused_code, sum_options
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.binary import Binary
from keras_qat.quantizers import Grid, fake_quantize_weights
from keras_qat.scheme import Scheme

# XNNPACK does not take operators if an input's scale is less than this times the output's scale.
_LEAST_RATIO = np.float32(2.0**-10)


class Arithmetic(Binary):
    """Base class of the three operators, with an output range of their own and an activation.

    A constant becomes an operand with one scale, quantized like weights.

    Args:
        activation: Activation after the operator; in a quantized layer `None`, `"relu"` or
            `"relu6"`.
        activation_name: Name of the activation if it was a layer of its own.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `Binary`.
    """

    activation_bits = (8, 16)
    takes_follower = True
    operator_code: str
    function: Any  # of two float tensors
    least_ratio = np.float32(0.0)

    def __init__(
        self,
        activation=None,
        *,
        activation_name: str | None = None,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        function = keras.activations.get(activation)
        name = function_name(function)
        self.activation = function if name == "custom" else name
        self.activation_name = activation_name

    def float_forward(self, inputs, training=None):
        """Combines the operands in float, and applies the activation."""
        del training
        return self._combined(inputs, self.operand)

    def training_forward(self, inputs):
        """Combines with the constant rounded to its grid, then rounds the output."""
        constant = None
        if self.constant is not None:
            scheme = self._scheme().for_constants()
            constant = fake_quantize_weights(self.operand, None, scheme)
        return self.quantize_output(self._combined(inputs, constant))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Combines as the target's kernel does."""
        (a, grid_a), (b, grid_b) = self.in_order(inputs, self._constant_centered(output.scale))
        options = {"activation": self.activation, "scheme": self._scheme()}
        tensors = a, b, grid_a.scale, grid_b.scale, *output
        return combined_centered(*tensors, rule=self.integer_rule(self.operator_code), **options)

    def lower(self, builder, *inputs):
        """Adds one operator."""
        return builder.operator(
            self.operator_code,
            self.in_order(inputs, self._lowered_constant(builder, inputs[0])),
            options=self._options(),
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        activation = keras.activations.serialize(keras.activations.get(self.activation))
        names = {"activation": activation, "activation_name": self.activation_name}
        return {**super().get_config(), **names}

    def _options(self) -> dict[str, Any]:
        return sum_options(self.activation, self.output_grid())

    def _combined(self, inputs, constant):
        operands = self.in_order(tree.flatten(inputs), constant)
        return apply_activation(self.activation, functools.reduce(self.function, operands))

    def _constant_centered(self, output_scale) -> OffsetInts | None:
        if self.constant is None:
            return None
        values = ops.convert_to_tensor(self.operand)
        scheme, least_scale = self._scheme().for_constants(), output_scale * self.least_ratio
        return centered_constant(values, scheme, least_scale)

    def _lowered_constant(self, builder, x):
        if self.scheme is None:
            return self.lowered_operand(builder, x)
        centered = self._constant_centered(self._neighbours().output.grid().scale)
        if centered is None or self.constant is None:
            return None
        constant = stored(centered.values, centered.grid, self._scheme().dtype)
        return self.lowered_operand(builder, x, *constant)


@register(any_of(layer_of(keras.layers.Add), operation_named("Add")), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QAdd(Arithmetic):
    """Sum of two tensors, or of a tensor and a constant, with a fused activation: one ADD.

    With `activation="relu"` it is the end of a residual block, `Add` and `Activation` in one.

    Args:
        activation: Activation after the addition. In a float layer any activation, in a quantized
            layer `None`, `"relu"` or `"relu6"`.
        constant: The arguments of a `Constant`, such as a learned embedding of positions.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> y = QAdd("relu")([np.array([[1.0, -3.0]]), np.array([[1.0, 1.0]])])
    >>> [float(v) for v in y[0]]
    [2.0, 0.0]
    """

    keras_class = keras.layers.Add
    operators = ("ADD",)
    operator_code = "ADD"
    function = staticmethod(ops.add)
    least_ratio = _LEAST_RATIO


@register(any_of(layer_of(keras.layers.Subtract), operation_named("Subtract")), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QSubtract(Arithmetic):
    """Difference of two operands with a fused activation: one SUB.

    Args:
        activation: Activation after the subtraction. In a float layer any activation, in a
            quantized layer `None`, `"relu"` or `"relu6"`.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> y = QSubtract()([np.array([[1.0, -3.0]]), np.array([[1.0, 1.0]])])
    >>> [float(v) for v in y[0]]
    [0.0, -4.0]
    """

    keras_class = keras.layers.Subtract
    operators = ("SUB",)
    operator_code = "SUB"
    function = staticmethod(ops.subtract)
    least_ratio = _LEAST_RATIO


@register(any_of(layer_of(keras.layers.Multiply), operation_named("Multiply")), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QMultiply(Arithmetic):
    """Product of two operands, which may broadcast, with a fused activation: one MUL.

    Args:
        activation: Activation after the product. In a float layer any activation, in a quantized
            layer `None`, `"relu"` or `"relu6"`.
        constant: The arguments of a `Constant`, if one operand is constant.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> y = QMultiply()([np.array([[2.0, -3.0]]), np.array([[2.0, 1.0]])])
    >>> [float(v) for v in y[0]]
    [4.0, -3.0]
    """

    keras_class = keras.layers.Multiply
    operators = ("MUL",)
    operator_code = "MUL"
    function = staticmethod(ops.multiply)

    def _options(self) -> dict[str, Any]:
        return {"fusedActivationFunction": fused_code(self.activation, self.output_grid())}


@compiled
def combined_centered(a, b, scale_a, scale_b, scale, zero_point, *, rule, activation, scheme):
    """Combines centered integers by the rule of an ADD, SUB or MUL.

    Args:
        a: float32 whole numbers, the first operand.
        b: float32 whole numbers, the second operand, which may broadcast.
        scale_a: float32 scalar tensor, scale of the first operand.
        scale_b: float32 scalar tensor, scale of the second operand.
        scale: float32 scalar tensor, scale of the output.
        zero_point: int32 scalar tensor, zero point of the output.
        rule: The rule of the kernels, one of `arithmetic.rules`.
        activation: Name of the fused activation.
        scheme: The scheme.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    first, second = ops.cast(a, "int32"), ops.cast(b, "int32")
    limits = activation_limits(activation, scale, zero_point, scheme)
    q = rule(first, scale_a, 0, second, scale_b, 0, scale, zero_point, *limits)
    return ops.cast(q - zero_point, "float32")
