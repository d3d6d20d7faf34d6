"""Replaces operators without a reference kernel by tables of the results of other kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_qat.litert.format.operators import declaration_of, with_trait
from keras_qat.litert.format.schema_enums import name_of
from keras_qat.litert.format.types import Model, Operator, Quantization, Tensor
from keras_qat.litert.reading.reader import LiteRTFile
from keras_qat.litert.running.expose import repack, unpack
from keras_qat.litert.writing.buffers import AlignedBuffer
from keras_qat.litert.writing.writer import to_bytes

_INTEGERS = np.arange(-128, 128, dtype="int8")


def with_measured_tables(content: bytes) -> bytes:
    """Returns a file that the reference kernels run, with the same integers in its tensors.

    The reference kernels lack ELU. LiteRT's kernel for ELU, which belongs to no delegate, computes
    the results of all 256 integers once. CAST, ADD and GATHER then look up the results, and replace
    the operator. The reference kernels compute DEPTHWISE_CONV_2D with int4 weights, but do not
    register its version. The returned file states an older version.

    Args:
        content: A `.tflite` file.

    Returns:
        The content of a file without int8 ELU, in versions that the kernels register.

    Example:
        >>> from keras_qat.litert.reading.reader import read
        >>> halves = Quantization(np.float32([0.5]), np.int64([0]))
        >>> x, y = (Tensor(name, (1, 8), "int8", halves) for name in "xy")
        >>> content = to_bytes(Model({"x": x}, {"y": y}, (Operator("ELU", (x,), (y,)),)))
        >>> file = read(with_measured_tables(content))
        >>> [file.operator_name(each) for each in file.model["subgraphs"][0]["operators"]]
        ['CAST', 'ADD', 'GATHER']
    """
    table = unpack(content)
    for graph in table.subgraphs:
        writer = _Lookups(table, graph)
        graph.operators = [new for each in graph.operators or () for new in writer.replaced(each)]
    _drop_unused_codes(table)
    for code in table.operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        known = declaration_of(name_of("BuiltinOperator", number)).reference_version
        code.version = min(code.version, known)
    return repack(table)


def needs_tables(file: LiteRTFile) -> bool:
    """Returns whether the reference kernels run a file only after `with_measured_tables`.

    Args:
        file: The file.

    Example:
        >>> from keras_qat.litert.reading.reader import read
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> needs_tables(read(to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))))
        False
    """
    lacking = with_trait("no_reference_kernel")
    operators = [each for graph in file.model["subgraphs"] for each in graph["operators"] or ()]
    return any(
        name in lacking or version > declaration_of(name).reference_version
        for each in operators
        for name, version in [(file.operator_name(each), file.operator_code(each)["version"])]
    )


class _Lookups:
    """Replaces operators of one subgraph by lookups."""

    def __init__(self, table: Any, graph: Any):
        from ai_edge_litert import schema_py_generated as schema

        self._schema, self._table, self._graph = schema, table, graph
        generated: type = schema.BuiltinOperator
        codes: Mapping[str, int] = vars(generated)
        self._lacking = {codes[name]: name for name in with_trait("no_reference_kernel")}

    def replaced(self, operator: Any) -> list[Any]:
        """Returns the operators that replace one operator."""
        code = self._table.operatorCodes[operator.opcodeIndex]
        name = self._lacking.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        if name is None:
            return [operator]
        ends = [self._graph.tensors[i] for i in (operator.inputs[0], operator.outputs[0])]
        if any(each.type != self._schema.TensorType.INT8 for each in ends):
            return [operator]
        source, target = map(_quantization, ends)
        entries = measured_table(name, source, target, code.version)
        return self._lookup(int(operator.inputs[0]), int(operator.outputs[0]), entries)

    def _lookup(self, source: int, target: int, entries: np.ndarray) -> list[Any]:
        """Returns CAST, ADD and GATHER, which look up the results for a tensor."""
        types, name = self._schema.TensorType, self._graph.tensors[target].name.decode()
        like = self._graph.tensors[source]
        offset = self._constant(f"{name}/offset", np.int32(128), types.INT32)
        table = self._constant(f"{name}/table", entries, types.INT8)
        self._graph.tensors[table].quantization = self._graph.tensors[target].quantization
        wide = self._tensor(f"{name}/wide", types.INT32, like.shape, like.shapeSignature)
        index = self._tensor(f"{name}/index", types.INT32, like.shape, like.shapeSignature)
        cast = self._schema.CastOptionsT(inDataType=types.INT8, outDataType=types.INT32)
        return [
            self._operator("CAST", [source], wide, 1, cast),
            self._operator("ADD", [wide, offset], index, 1, self._schema.AddOptionsT()),
            self._operator("GATHER", [table, index], target, 2, self._schema.GatherOptionsT()),
        ]

    def _constant(self, name: str, data: Any, dtype: int) -> int:
        self._table.buffers.append(AlignedBuffer(data.tobytes()))
        return self._tensor(name, dtype, list(data.shape), None, len(self._table.buffers) - 1)

    def _tensor(self, name: str, dtype: int, shape: Any, signature: Any, buffer: int = 0) -> int:
        self._graph.tensors.append(
            self._schema.TensorT(
                name=name, type=dtype, shape=shape, shapeSignature=signature, buffer=buffer
            )
        )
        return len(self._graph.tensors) - 1

    def _operator(self, name: str, inputs: list[int], output: int, version: int, options: Any):
        code = getattr(self._schema.BuiltinOperator, name)
        self._table.operatorCodes.append(
            self._schema.OperatorCodeT(
                builtinCode=code, deprecatedBuiltinCode=code, version=version
            )
        )
        kind = type(options).__name__.removesuffix("T")
        return self._schema.OperatorT(
            opcodeIndex=len(self._table.operatorCodes) - 1,
            inputs=inputs,
            outputs=[output],
            builtinOptionsType=getattr(self._schema.BuiltinOptions, kind),
            builtinOptions=options,
        )


def measured_table(code: str, source: Quantization, target: Quantization, version: int = 1) -> Any:
    """Runs an operator without options on all int8 integers, with LiteRT's own kernel.

    Args:
        code: Name of the operator.
        source: Quantization parameters of the input.
        target: Quantization parameters of the output.
        version: Version of the operator.

    Returns:
        int8 array of shape (256,), the results of -128 to 127.

    Example:
        >>> from keras_qat.litert.reading.reader import read
        >>> halves = Quantization(np.float32([0.5]), np.int64([0]))
        >>> measured_table("ELU", halves, halves)[[0, 126, 128, 130]].tolist()
        [-2, -1, 0, 2]
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    shape = _INTEGERS.shape
    x, y = Tensor("x", shape, "int8", source), Tensor("y", shape, "int8", target)
    content = to_bytes(Model({"x": x}, {"y": y}, (Operator(code, (x,), (y,), version),)))
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _INTEGERS)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _quantization(tensor: Any) -> Quantization:
    scale, zero_point = tensor.quantization.scale, tensor.quantization.zeroPoint
    return Quantization(np.asarray(scale, "float32"), np.asarray(zero_point, "int64"))


def _drop_unused_codes(table: Any) -> None:
    """Removes codes without operators. The interpreter would look for a kernel of each code."""
    operators = [each for graph in table.subgraphs for each in graph.operators]
    used = sorted({each.opcodeIndex for each in operators})
    table.operatorCodes = [table.operatorCodes[index] for index in used]
    for each in operators:
        each.opcodeIndex = used.index(each.opcodeIndex)
