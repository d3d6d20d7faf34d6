"""An operator with the roles of its operands, and sizes for one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.litert import Operator, Tensor
from keras_qat.litert.writing.static_shapes import static_shape

# Operands that are parameters of the computation, such as axes.
_NUMBERS = ("axes", "new_shape", "order", "pads", "shape", "size", "steps")


class Measured:
    """An operator with the roles of its operands.

    Args:
        operator: The operator.
        sizes: Result of `keras_qat.litert.writing.static_shapes.unknown_sizes` for the model.
        siblings: Names of all operators of the same layer.

    Attributes:
        code: Name of the operator.
        version: Version of the operator.
        options: Options of the operator.
        inputs: Operands that are present.
        kernel: Weights of the operator.
        parameter: The operand that is a parameter of the computation, such as axes.
        data: The input tensor.
        output: The output tensor.
        data_shape: The shape of `data` for one sample.
        output_shape: The shape of `output` for one sample.

    Example:
    >>> x, y = Tensor("x", (None, 8), "int8"), Tensor("y", (None, 8), "int8")
    >>> Measured(Operator("RELU", (x,), (y,), 2), {}, ["RELU"]).data_shape
    [1, 8]
    """

    def __init__(self, operator: Operator, sizes: Mapping[Tensor, int], siblings: Sequence[str]):
        self._operator = operator
        self.code, self.version = operator.code, operator.version
        self.options, self.siblings = operator.options, siblings
        self.kernel, self.parameter = operator.operand("weights"), operator.operand(*_NUMBERS)
        self.inputs = [x for x in operator.inputs if x is not None]
        data = operator.operand("data")
        assert data is not None
        self.data, self.output = data, operator.outputs[0]
        self.data_shape = static_shape(data, sizes)
        self.output_shape = static_shape(self.output, sizes)

    @property
    def numbers(self) -> Any:
        """The values of `parameter`; None if there is no `parameter`, or it is computed."""
        found = self.parameter
        return None if found is None or found.data is None else found.data.tolist()

    def constant(self, role: str) -> Any:
        """Returns the values of the operand with a role; None if it is absent or computed.

        Args:
            role: The role, such as `"pads"`.
        """
        found = self._operator.operand(role)
        return None if found is None or found.data is None else found.data.tolist()

    @property
    def axes(self) -> set[int] | None:
        """The reduced axes."""
        if "keepDims" not in self.options or self.numbers is None:
            return None
        numbers = self.numbers if isinstance(self.numbers, list) else [self.numbers]
        return {axis % len(self.data_shape) for axis in numbers}

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of the kernel."""
        if "filterHeight" in self.options:
            return self.options["filterHeight"], self.options["filterWidth"]
        if self.kernel is None or len(self.kernel.shape) != 4:
            return None
        _, height, width, _ = (int(size or 0) for size in self.kernel.shape)
        return height, width

    @property
    def strides(self) -> tuple[int, int] | None:
        """Vertical and horizontal stride."""
        if "strideH" not in self.options:
            return None
        return self.options["strideH"], self.options["strideW"]

    @property
    def dilations(self) -> tuple[int, int] | None:
        """Vertical and horizontal distance of a kernel's taps."""
        if self.window is None:
            return None
        options = self.options
        return options.get("dilationHFactor", 1), options.get("dilationWFactor", 1)

    @property
    def planes(self) -> tuple[list[int], list[int]] | None:
        """Height and width of the input, and of the output; None unless both are images."""
        if len(self.data_shape) != 4 or len(self.output_shape) != 4:
            return None
        return self.data_shape[1:3], self.output_shape[1:3]
