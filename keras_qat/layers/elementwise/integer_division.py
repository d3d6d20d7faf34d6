"""FLOOR_DIV and FLOOR_MOD of plain integers."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Node, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.layers.elementwise.binary import operands_of, value_of
from keras_qat.scheme import Scheme

_FUNCTIONS = {"FloorDivide": (ops.floor_divide, "FLOOR_DIV"), "Mod": (ops.mod, "FLOOR_MOD")}


@register(operation_named(*_FUNCTIONS))
@keras.saving.register_keras_serializable("keras_qat")
class QIntegerDivision(Elementwise):
    """Divides integers by a constant and rounds down, or returns the remainder: one operator.

    `ops.argmax` over the rows and columns of an image divides its positions in this way. Real
    values are looked up in a table instead.

    Args:
        function: Name of the class of the operation in `keras.ops`: `"FloorDivide"` or `"Mod"`.
        divisor: The constant, an integer other than 0.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> QIntegerDivision("Mod", 3)(np.array([[-1, 7]])).numpy().tolist()
    [[2, 1]]
    """

    operators = tuple(code for _, code in _FUNCTIONS.values())
    plain_dtype = "int32"
    plain_inputs = ("int",)
    output_specification = None

    def __init__(
        self, function: str, divisor: int, *, scheme: str | Scheme | None = None, **kwargs
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.function, self.divisor = function, int(divisor)

    def float_forward(self, inputs, training=None):
        """Divides the integers. Quotients have no gradient."""
        del training
        return _FUNCTIONS[self.function][0](ops.cast(inputs, "int32"), np.int32(self.divisor))

    def training_forward(self, inputs):
        """Divides the integers, which are not rounded."""
        return self.float_forward(inputs, training=True)

    def lower(self, builder, *inputs):
        """Adds one operator."""
        shape = (1,) * len(inputs[0].shape)
        divisor = builder.constant("divisor", np.full(shape, self.divisor, "int32"))
        return builder.operator(_FUNCTIONS[self.function][1], (inputs[0], divisor), dtype="int32")

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer.

        Raises:
            UnsupportedLayerError: If the divisor is not an integer other than 0.
        """
        first, second = operands_of(node)
        divisor = 0 if isinstance(second, Edge) else _whole(value_of(second))
        if not isinstance(first, Edge) or not divisor:
            raise UnsupportedLayerError(
                "Integers can be divided by one integer that is not 0.",
                layer=node.name,
                received="a divisor that is computed, 0, a fraction or an array",
                expected="a number, such as `ops.floor_divide(positions, 7)`",
                fix="Divide by such a number.",
            )
        return cls(type(node.head).__name__, divisor, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "function": self.function, "divisor": self.divisor}


def _whole(value: np.ndarray) -> int:
    """Returns a constant that is one whole number, else 0."""
    is_whole = value.size == 1 and float(value.item()).is_integer()
    return int(value.item()) if is_whole else 0
