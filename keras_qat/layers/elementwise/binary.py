"""Base class of operators of two operands, of which one may be a constant."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Node
from keras_qat.graph.graph import Parameter
from keras_qat.graph.penalties import regularizer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import (
    activation_behind,
    activation_config,
    assign_copy,
    cannot_take_up,
    layer_of_chain,
)
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.scheme import Scheme


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant operand, which becomes a weight of the layer.

    Attributes:
        shape: Shape of the constant.
        position: 0 for the first operand, 1 for the second.
        trainable: Whether training changes the constant.
        name: Name of the weight.
        regularizer: The regularizer of the weight, as Keras serializes it; None without one.
    """

    shape: Sequence[int]
    position: int = 1
    trainable: bool = False
    name: str = "constant"
    regularizer: dict[str, Any] | None = None


class Binary(QuantizedLayer):
    """Base class of operators that combine two operands element by element.

    Args:
        constant: The arguments of a `Constant`, if one operand is constant; None for two tensors.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Attributes:
        takes_follower: Whether the operator has an `activation`.
    """

    takes_follower = False

    def __init__(
        self, *, constant: dict | None = None, scheme: str | Scheme | None = None, **kwargs
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.constant = None if constant is None else Constant(**constant)
        self.operand: Any = None

    def build(self, input_shape):
        """Checks the shapes, creates the constant and builds the range observer."""
        self._check_shapes(self._shapes(input_shape))
        if self.constant is not None:
            self.operand = self.add_weight(
                name=self.constant.name,
                shape=tuple(self.constant.shape),
                initializer="zeros",
                trainable=self.constant.trainable,
                regularizer=keras.regularizers.get(self.constant.regularizer),
            )
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape that both operands broadcast to."""
        return broadcast_shape(*self._shapes(input_shape))

    def operand_tensor(self) -> Any:
        """Returns the constant as a tensor; None without one. JAX selects among tensors only."""
        return None if self.constant is None else ops.convert_to_tensor(self.operand)

    def in_order(self, inputs: Sequence[Any], constant: Any) -> list[Any]:
        """Returns both operands in order.

        Args:
            inputs: The tensors: two, or the only one.
            constant: The value to use for the constant, if there is one.
        """
        operands = list(inputs)
        if self.constant is not None:
            operands.insert(self.constant.position, constant)
        return operands

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for two tensors, or a tensor and a constant, and a follower."""
        given = {"name": node.name, "scheme": scheme, **cls.config_of_match(node)}
        return layer_of_chain(cls, node.operations, **given)

    @classmethod
    def config_of_match(cls, node: Node) -> dict[str, Any]:
        """Returns the arguments that follow from the call, and not from the operations."""
        return {"constant": constant_of(node, cls.operands_of(node))}

    @classmethod
    def operands_of(cls, node: Node) -> list[Any]:
        """Returns the two operands: an `Edge` for a tensor, else the constant."""
        return operands_of(node)

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a merging layer and, if supported, an activation."""
        config = {"name": head.name}
        for follower in followers:
            if "activation" in config or not cls.takes_follower:
                raise cannot_take_up(cls, follower)
            config |= activation_config(cls, follower)
        return config

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the merging layer and its activation; None if Keras has no such layer."""
        if self.constant is not None or self.keras_class is None:
            return None
        layers = [self.keras_class(name=self.name, dtype=self.dtype_policy)]
        return layers + (activation_behind(self) if self.takes_follower else [])

    def lowered_operand(self, builder, x, values: Any = None, quantization: Any = None) -> Any:
        """Returns the constant as a LiteRT tensor with the rank of the other operand, or None.

        Args:
            builder: A `keras_qat.lowering.Builder`.
            x: LiteRT tensor of the other operand.
            values: Values of the constant in the file, by default the variable's values.
            quantization: Quantization parameters of the values.
        """
        if self.constant is None:
            return None
        values = ops.convert_to_numpy(self.operand) if values is None else values
        shape = (1,) * (len(x.shape) - values.ndim) + values.shape
        return builder.constant(self.constant.name, values.reshape(shape), quantization)

    def carry_weights(self, node: Node) -> None:
        """Copies the constant."""
        if self.constant is not None:
            value = value_of(self.operands_of(node)[self.constant.position])
            assign_copy(self.operand, value.astype("float32"))

    def get_config(self):
        """Returns the constructor's arguments."""
        constant = None if self.constant is None else dataclasses.asdict(self.constant)
        return {**super().get_config(), "constant": constant}

    def _shapes(self, input_shape) -> list[tuple[int | None, ...]]:
        if self.constant is None:
            return [tuple(shape) for shape in input_shape]
        return self._with_constant(tuple(input_shape))

    def _with_constant(self, shape) -> list[tuple[int | None, ...]]:
        """Returns both shapes, the constant's with as many dimensions as the tensor's."""
        assert self.constant is not None
        own = tuple(self.constant.shape)
        shapes = [shape, (1,) * (len(shape) - len(own)) + own]
        return shapes[::-1] if self.constant.position == 0 else shapes

    def _check_shapes(self, shapes) -> None:
        is_many = len(shapes) > 2 and self.scheme is None
        if len({len(shape) for shape in shapes}) != 1 or not (len(shapes) == 2 or is_many):
            raise UnsupportedLayerError(
                "Operands of different ranks have no integer form here.",
                layer=self.name,
                received=f"shapes {shapes}",
                expected="shapes of the same rank, which may broadcast, of two tensors",
                fix="Reshape the smaller one, with sizes of 1 where it broadcasts.",
            )
        if self.constant is not None and shapes[self.constant.position][0] != 1:
            raise batch_moved(self.name, f"a constant of shape {tuple(self.constant.shape)}")


def operands_of(node: Node) -> list[Any]:
    """Returns the operands of a node: an `Edge` for a tensor, else the constant.

    Args:
        node: A call of a merging layer, or of an operation of two arguments.
    """
    args, kwargs = node.arguments
    values = [*args, *kwargs.values()]
    return list(values[0]) if len(values) == 1 else values


def constant_of(node: Node, operands: Sequence[Any]) -> dict[str, Any] | None:
    """Returns the arguments of the `Constant` among the operands, None if all are tensors.

    Args:
        node: The node, for messages.
        operands: Two operands.

    Returns:
        The fields of a `Constant`.

    Raises:
        UnsupportedLayerError: If there are not two operands, or neither is a tensor.
    """
    constants = [i for i, operand in enumerate(operands) if not isinstance(operand, Edge)]
    if len(operands) != 2 or len(constants) == 2:
        raise UnsupportedLayerError(
            "The operator combines two operands.",
            layer=node.name,
            received=f"{len(operands)} operand(s), {len(constants)} of them constant",
            expected="two tensors, or a tensor and a constant",
            fix="Combine two at a time.",
        )
    if not constants:
        return None
    operand = operands[constants[0]]
    name = str(getattr(operand, "name", "constant")).rpartition("/")[2]
    regularizer = regularizer_of(operand, value_of(operand).size)
    return {
        "shape": list(value_of(operand).shape),
        "position": constants[0],
        "trainable": bool(getattr(operand, "trainable", False)),
        "name": name if name.isidentifier() else "constant",
        "regularizer": keras.regularizers.serialize(regularizer) if regularizer else None,
    }


def value_of(operand: Any) -> np.ndarray:
    """Returns the value of an operand that is not a tensor of the graph.

    Args:
        operand: A `Parameter`, a variable, an array or a number.
    """
    value = operand.value if isinstance(operand, Parameter) else operand
    return np.array(ops.convert_to_numpy(value))
