"""An operator of a file with the values of its operands, which are found by their roles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.arithmetic.rules import RULES, Rule
from keras_qat.layers.core.activation_names import FUSED_CODES
from keras_qat.layers.core.fused import activation_limits
from keras_qat.litert import Operator, Quantization, Tensor
from keras_qat.litert.format.operator_versions import CONDITIONS
from keras_qat.litert.format.operators import Declaration, declaration_of
from keras_qat.scheme import SCHEMES

_FUSED = {code: name for name, code in FUSED_CODES.items()}
_SCHEMES_BY_TYPE = {scheme.dtype: scheme for scheme in SCHEMES.values()}


@dataclasses.dataclass(frozen=True)
class Call:
    """An operator, the values of its operands, and one of its outputs.

    Attributes:
        operator: The operator.
        values: Value of each operand; None for an absent operand.
        shape: Shape of the output for these values.
        kernels: Name of the kernels whose rules apply, a key of `integer` in operators.toml.
        place: The number of the output among those of the operator.
    """

    operator: Operator
    values: Sequence[Any]
    shape: tuple[int, ...]
    kernels: str = "reference"
    place: int = 0

    @property
    def declaration(self) -> Declaration:
        """The entry of the operator in operators.toml."""
        return declaration_of(self.operator.code)

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the operator."""
        return self.operator.options

    @property
    def output(self) -> Tensor:
        """The output tensor."""
        return self.operator.outputs[self.place]

    @property
    def is_quantized(self) -> bool:
        """Whether the output is 8-bit integers with a scale."""
        return self.output.dtype in _SCHEMES_BY_TYPE and self.output.quantization is not None

    @property
    def rule(self) -> Rule | None:
        """The rule of the kernels for integers with scales; None if they share one."""
        return RULES.get(self.declaration.rule(self.kernels, self._rule_type()))

    def _rule_type(self) -> str:
        """Returns the type that the rule depends on: that of packed weights, else of the data.

        LiteRT runs groups with 4-bit weights in its reference kernel.
        """
        data, weights = self.operator.operand("data"), self.operator.operand("weights")
        dtype = self.output.dtype if data is None else data.dtype
        if weights is None or weights.dtype not in ("int2", "int4"):
            return dtype
        has_groups = "grouped" in self.declaration.versions.values()
        return dtype if has_groups and CONDITIONS["grouped"](self.operator) else weights.dtype

    def value(self, role: str) -> Any:
        """Returns the value of the first operand with a role; None without such an operand."""
        place = self.declaration.place(role)
        return None if place is None or place >= len(self.values) else self.values[place]

    def grids(self) -> list[tuple[Any, Any]]:
        """Returns the scale and the zero point of each operand."""
        return [_grid(tensor) for tensor in self.operator.inputs]

    def grid(self, role: str | None = None) -> tuple[Any, Any]:
        """Returns the scale and the zero point of the operand with a role, or of the output."""
        return _grid(self.output if role is None else self.operator.operand(role))

    def centered(self, role: str = "data") -> Any:
        """Returns the values of an operand minus its zero point; real values unchanged."""
        values, tensor = self.value(role), self.operator.operand(role)
        if tensor is None or tensor.quantization is None:
            return values
        zero_point = tensor.quantization.zero_point.astype("int32")
        if zero_point.size > 1:  # one for each channel
            shape = [-1 if i == tensor.quantization.axis else 1 for i in range(values.ndim)]
            zero_point = zero_point.reshape(shape)
        return values.astype("int32") - zero_point

    def limits(self) -> tuple[Any, Any]:
        """Returns the least and the greatest integer of the output."""
        fused = _FUSED[self.options.get("fusedActivationFunction", "NONE")]
        return activation_limits(fused, *self.grid(), _SCHEMES_BY_TYPE[self.output.dtype])


def _grid(tensor: Tensor | None) -> tuple[Any, Any]:
    """Returns scale and zero point, as numbers if there is one of each."""
    assert tensor is not None
    assert tensor.quantization is not None
    quantization: Quantization = tensor.quantization
    scale, zero_point = quantization.scale, quantization.zero_point.astype("int32")
    return (scale[0], zero_point[0]) if scale.size == 1 else (scale, zero_point)
