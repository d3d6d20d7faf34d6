"""ADD."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.arithmetic.elementwise import add
from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, any_of, layer_of, maybe, operation_named
from keras_qat.layers.activation_names import FUSED, FUSED_CODES, activation_name, function_name
from keras_qat.layers.base import Centered, QuantizedLayer
from keras_qat.layers.fused import activation_limits, apply_activation
from keras_qat.layers.registry import register
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


@register(any_of(layer_of(keras.layers.Add), operation_named("Add")), maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QAdd(QuantizedLayer, keras.layers.Add):
    """Sum of two tensors with a fused activation: one ADD.

    With `activation="relu"` it is the end of a residual block, `Add` and `Activation` in one.

    Args:
        activation: `None`, `"relu"` or `"relu6"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Add`.

    Example:
    >>> import numpy as np
    >>> y = QAdd("relu")([np.array([[1.0, -3.0]]), np.array([[1.0, 1.0]])])
    >>> [float(v) for v in y[0]]
    [2.0, 0.0]
    """

    def __init__(self, activation=None, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.activation = function_name(keras.activations.get(activation))

    def build(self, input_shape):
        """Checks the shapes and builds the range observer."""
        ranks = [len(shape) for shape in input_shape]
        if len(set(ranks)) != 1:
            raise UnsupportedLayerError(
                "An addition of tensors of different ranks has no integer form here.",
                layer=self.name,
                received=f"shapes {[tuple(shape) for shape in input_shape]}",
                expected="shapes of the same rank, which may broadcast",
                fix="Reshape the smaller one, with sizes of 1 where it broadcasts.",
            )
        super().build(input_shape)

    def float_forward(self, inputs, training=None):
        """Adds and activates."""
        del training
        return apply_activation(self.activation, ops.add(*inputs))

    def integer(self, *inputs: Centered, output: Grid):
        """Adds as the reference ADD does, in 20 more bits than the inputs have."""
        (a, grid_a), (b, grid_b) = inputs
        limits = activation_limits(self.activation, *output, self._scheme())
        return _add_centered(a, b, grid_a.scale, grid_b.scale, *output, *limits)

    def lower(self, builder, *inputs):
        """Adds one ADD."""
        return builder.operator(
            "ADD",
            inputs,
            version=2,
            options_type="AddOptions",
            options={"fusedActivationFunction": FUSED_CODES[self.activation]},
        )

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for `Add [+ ReLU]` of two tensors of the same rank."""
        if len(node.inputs) != 2:
            raise UnsupportedLayerError(
                "An addition with a constant has no integer form here.",
                layer=node.name,
                received=f"{len(node.inputs)} tensor(s)",
                expected="two tensors",
                fix="Put the constant into the bias of the layer before, if there is one.",
            )
        followers = node.operations[1:]
        activation = activation_name(followers[0]) if followers else None
        return cls(activation, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "activation": self.activation}


@compiled
def _add_centered(a, b, scale_a, scale_b, scale, zero_point, low, high):
    first, second = ops.cast(a, "int32"), ops.cast(b, "int32")
    q = add(first, scale_a, 0, second, scale_b, 0, scale, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")
