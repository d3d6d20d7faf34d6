"""The builder to which layers add their operators in `lower`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Node
from keras_qat.litert import Operator, Quantization, Tensor
from keras_qat.litert.format.operator_versions import operator_version


class Builder:
    """Collects the operators that layers add in their `lower`.

    Attributes:
        operators: The operators so far, in order.
    """

    def __init__(self):
        self.operators: list[Operator] = []
        self._constants: dict[str, Tensor] = {}
        self._dequantized: dict[Tensor, Tensor] = {}
        self._shared: dict[Hashable, tuple[Tensor, ...]] = {}
        self._node: Any = None

    def enter(self, node: Node) -> None:
        """Makes a node the current one. The next operators belong to it."""
        self._node = node

    @property
    def name(self) -> str:
        """Name of the node, and of its output."""
        return self._node.name

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of the node's output."""
        return self._node.shapes[0]

    @property
    def is_float(self) -> bool:
        """Whether the node's layer stays in float."""
        return self._node.head.scheme is None

    @property
    def dtype(self) -> str:
        """Type of the node's output: the type of its scheme, float32, or that of plain numbers."""
        own = self._node.dtypes[0]
        if not own.startswith(("float", "bfloat")):
            return own
        return "float32" if self.is_float else self._node.head.scheme.dtype

    @property
    def output_quantization(self) -> Quantization | None:
        """Quantization parameters of the node's output. None in float."""
        output = None if self.is_float else self._node.head.neighbours.output
        return None if output is None else quantization_of(output)

    def operator(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        *,
        part: str | None = None,
        shape: Sequence[int | None] | None = None,
        quantization: Quantization | None = None,
        dtype: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Adds an operator.

        Args:
            code: Name of the operator, such as `"CONV_2D"`.
            inputs: The inputs. None stands for an absent optional input.
            part: Name of the output within the node. None for the node's own output.
            shape: Shape of the output. By default the shape of the node's output.
            quantization: Quantization parameters of the output. By default those of the node's
                output, if both have the same type.
            dtype: Type of the output. By default the type of the scheme, or float32 if the layer
                stays in float. Other types are for plain integers inside a layer of several
                operators, and have no quantization parameters.
            options: Options of the operator, by field.

        Returns:
            The output tensor.
        """
        name = self._node.name if part is None else f"{self._node.name}/{part}"
        dtype = dtype or self.dtype
        if dtype == self.dtype != "float32":
            quantization = quantization or self.output_quantization
        shape = self.output_shape if shape is None else tuple(shape)
        output = Tensor(name, shape, dtype, quantization)
        self.add(code, inputs, output, options)
        return output

    def add(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        output: Tensor | tuple[Tensor, ...],
        options: Mapping[str, Any] | None = None,
        intermediates: tuple[Tensor, ...] = (),
    ) -> None:
        """Adds an operator that makes given tensors. Chooses the version of the operator.

        Args:
            code: Name of the operator.
            inputs: The inputs.
            output: The output, or the outputs.
            options: Options of the operator, by field.
            intermediates: Tensors whose quantization parameters the kernel reads.
        """
        outputs = output if isinstance(output, tuple) else (output,)
        operator = Operator(
            code, tuple(inputs), outputs, options=options or {}, intermediates=intermediates
        )
        version = operator_version(operator)
        self.operators.append(dataclasses.replace(operator, version=version))

    def once(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Returns the outputs of an operator that the layers of its outputs share.

        Args:
            key: The operator's code, inputs and arguments.
            make: Adds the operator and returns its outputs. Only the first of the layers calls it.
        """
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def reshape(self, x: Tensor, shape: Sequence[int | None], *, part: str | None = None) -> Tensor:
        """Adds a RESHAPE that keeps scale and zero point. An unknown batch size stays unknown."""
        sizes = np.array([-1 if size is None else size for size in shape], "int32")
        sizes = self.constant("shape" if part is None else f"{part}/shape", sizes)
        return self.operator(
            "RESHAPE",
            (x, sizes),
            part=part,
            shape=shape,
            quantization=x.quantization,
            dtype=x.dtype,
            options={"newShape": sizes.data},
        )

    def constant(
        self, role: str, data: np.ndarray, quantization: Quantization | None = None
    ) -> Tensor:
        """Returns a constant of the node's layer. Calls of a shared layer share equal constants."""
        name, data = f"{self._node.head.name}/{role}", np.asarray(data, order="C")
        known = self._constants.get(name)
        if known is not None and not np.array_equal(np.asarray(known.data), data):
            name = f"{self._node.name}/{role}"
        if name not in self._constants:
            self._constants[name] = Tensor(name, data.shape, str(data.dtype), quantization, data)
        return self._constants[name]

    def weights(self, kernel: np.ndarray, grid: Quantization | None, *, axis: int) -> Tensor:
        """Returns the layer's kernel. Per-channel scales belong to `axis`."""
        if grid is not None and grid.scale.size == kernel.shape[axis]:
            grid = Quantization(grid.scale, grid.zero_point, axis)
        return self.constant("kernel", kernel, grid)

    def bias(self, bias: np.ndarray, x: Tensor, kernel: Quantization | None) -> Tensor:
        """Returns the layer's bias, at input scale times kernel scale, or in float.

        It has 32 bits, and 64 bits for activations of 16 bits.
        """
        if kernel is None:
            return self.constant("bias", bias)
        assert x.quantization is not None
        scale = x.quantization.scale * kernel.scale
        grid = Quantization(scale, np.zeros(scale.shape, "int64"))
        return self.constant("bias", bias.astype("int64" if x.dtype == "int16" else "int32"), grid)

    def dequantize(self, x: Tensor) -> Tensor:
        """Returns the real values of a tensor. All consumers share one DEQUANTIZE."""
        if x.quantization is None:
            return x
        if x not in self._dequantized:
            outer = Tensor(f"{x.name}_float32", x.shape, "float32")
            self.add("DEQUANTIZE", (x,), outer)
            self._dequantized[x] = outer
        return self._dequantized[x]


def quantization_of(parameters: Any, offset: int = 0) -> Quantization:
    """Returns the present scale and zero point of quantization parameters.

    Args:
        parameters: The quantization parameters of a tensor.
        offset: Number to add to the zero point.

    Returns:
        Parameters of a LiteRT tensor.
    """
    scale, zero_point = (ops.convert_to_numpy(value) for value in parameters.grid())
    scale, zero_point = np.asarray(scale, "float32").reshape(1), int(zero_point) + offset
    return Quantization(scale, np.array([zero_point], "int64"))
