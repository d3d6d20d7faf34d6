"""Data types of a LiteRT model: frozen dataclasses that the writer turns into a file.

This module does not depend on the file format.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_qat.litert.format.operators import declaration_of


@dataclass(frozen=True, eq=False)
class Quantization:
    """Affine quantization of one tensor: `real = scale * (integer - zero_point)`.

    Follows the LiteRT 8-bit quantization specification
    (https://ai.google.dev/edge/litert/models/quantization_spec).

    Args:
        scale: float32 array of shape `(1,)` (per tensor) or `(channels,)` (per channel).
        zero_point: int64 array of the same shape as `scale`.
        axis: The channels' dimension in the tensor (`quantizedDimension` in the schema). For
            per-tensor quantization it is 0 and has no meaning.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert import Quantization
        >>> q = Quantization(np.float32([0.5]), np.int64([-3]))
        >>> (q.scale * (np.int8([-3, 1]) - q.zero_point)).tolist()
        [0.0, 2.0]
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a model. Each object is one tensor in the file.

    Args:
        name: Name that is unique in the model.
        shape: Dimensions; `None` for a dynamic dimension (written as 1, with -1 in
            `shape_signature`).
        dtype: `"int8"`, `"uint8"`, `"int16"`, `"int32"`, `"int64"`, `"float32"` or `"bool"`.
        quantization: Scales and zero points, or `None` for a tensor that is not quantized.
        data: Value of a constant, of exactly `shape` and `dtype`; `None` for an activation.
        is_variable: Whether operators change the tensor in place, such as the state of an LSTM. It
            keeps its value from one run to the next, unless an operator sets it first.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert import Tensor
        >>> x = Tensor("x", (None, 4), "int8")
        >>> axes = Tensor("axes", (2,), "int32", data=np.int32([1, 2]))
        >>> x.data is None, axes.data.tolist()
        (True, [1, 2])
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: Quantization | None = None
    data: np.ndarray | None = None
    is_variable: bool = False


@dataclass(frozen=True, eq=False)
class Operator:
    """One built-in operator applied to tensors.

    Args:
        code: Name in the schema's `BuiltinOperator`, such as `"CONV_2D"`.
        inputs: The operands, in the kernel's order; `None` for an absent optional operand.
        outputs: The tensors that the operator defines.
        version: Operator version, from 1.
        options: Fields of the operator's options table by their object-API names; fields left out
            keep the schema's defaults. Enum values are given by name, as in
            `{"padding": "SAME", "strideH": 1, "fusedActivationFunction": "RELU6"}`.
        intermediates: Tensors without values, whose quantization parameters the kernel reads.

    Example:
        >>> from keras_qat.litert import Operator, Tensor
        >>> x, y = Tensor("x", (1, 8), "int8"), Tensor("y", (1, 8), "int8")
        >>> Operator("SOFTMAX", (x,), (y,), 2, {"beta": 1.0}).operand("data").name
        'x'
    """

    code: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    intermediates: tuple[Tensor, ...] = ()

    def operand(self, *roles: str) -> Tensor | None:
        """Returns the first operand that has one of the roles, or None.

        Args:
            *roles: Roles, as in `keras_qat.litert.format.operators.Declaration`.
        """
        place = declaration_of(self.code).place(*roles)
        return self.inputs[place] if place is not None and place < len(self.inputs) else None


@dataclass(frozen=True, eq=False)
class Model:
    """A whole model: one subgraph with one signature, `serving_default`.

    Args:
        inputs: Signature name to tensor, in the order of the file's inputs.
        outputs: Signature name to tensor, in the order of the file's outputs.
        operators: In execution order.
        description: Free text, stored in the file.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> model = Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),))
        >>> model.description
        'keras_qat'
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    description: str = "keras_qat"
