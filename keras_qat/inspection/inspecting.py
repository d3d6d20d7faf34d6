"""`inspect_litert`: a report on the content of a `.tflite` file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.inspection.costs import operator_macs
from keras_qat.inspection.operators import as_operator
from keras_qat.inspection.report import (
    FileReport,
    MetadataReport,
    OperatorReport,
    QuantizationReport,
    SignatureReport,
    TensorReport,
)
from keras_qat.inspection.verdicts import fully_integer
from keras_qat.litert import LiteRTFile, Record, oldest_runtime, read
from keras_qat.litert.format.element_types import dense_bytes, element_type
from keras_qat.litert.format.schema_enums import name_of
from keras_qat.litert.format.schema_tables import snake_case
from keras_qat.litert.reading.remarks import remarks
from keras_qat.litert.writing.options import ENUM_FIELDS


def inspect_litert(path: bytes | str | os.PathLike[str]) -> FileReport:
    """Reports the content of a `.tflite` file of any tool.

    The file is read and checked, but never run. A damaged file raises an error, whatever its
    bytes are.

    The shapes are those that the file states. A dynamic dimension, usually the batch, has the size
    1 in the file and counts as 1. Multiply-accumulate operations are counted for convolutions and
    matrix products, padding included. Other operators, such as pooling and element-wise ones, have
    0. Each operator is counted once, also in a loop.

    Args:
        path: Path of the file, or its content.

    Returns:
        The report. `print` shows it. Its attributes include `operators`, `tensors`, `signatures`,
        `metadata`, `macs`, `is_fully_integer`, `because` and `oldest_runtime`. `to_dict()` returns
        all of it.

    Raises:
        LiteRTFormatError: If the file cannot be read, is damaged or is not a `.tflite` file. The
            message names the file, the table and the field.

    Example:
        >>> import keras_qat
        >>> from keras_qat.litert import Model, Operator, Tensor, to_bytes
        >>> x, y = Tensor("x", (None, 8), "float32"), Tensor("y", (None, 8), "float32")
        >>> content = to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))
        >>> report = keras_qat.inspect_litert(content)
        >>> [(operator.name, operator.macs) for operator in report.operators]
        [('RELU', 0)]
        >>> report.is_fully_integer, report.because
        (False, ("the input 'x' is float32", "the output 'y' is float32"))
        >>> report.oldest_runtime.name
        'TensorFlow Lite 1.5'
    """
    file = read(path)
    model = file.model
    tensors = [_tensors(file, i) for i in range(len(model["subgraphs"]))]
    operators = tuple(
        _operator(file, subgraph, i, j)
        for i, subgraph in enumerate(model["subgraphs"])
        for j in range(len(subgraph["operators"] or ()))
    )
    everything = tuple(tensor for group in tensors for tensor in group)
    main = model["subgraphs"][0]
    inputs, outputs = (
        tuple(tensors[0][i] for i in _numbers(main[end])) for end in ("inputs", "outputs")
    )
    verdict, because = fully_integer(operators, everything, inputs, outputs)
    return FileReport(
        name=file.name,
        size=len(file.content),
        description=model["description"] or "",
        subgraphs=tuple(subgraph["name"] or "" for subgraph in model["subgraphs"]),
        inputs=inputs,
        outputs=outputs,
        operators=operators,
        tensors=everything,
        signatures=tuple(map(_signature, model["signature_defs"] or ())),
        metadata=tuple(_metadata(file, entry) for entry in model["metadata"] or ()),
        weight_bytes=file.weight_bytes,
        compressed_bytes=len(gzip.compress(file.content)),
        is_fully_integer=verdict,
        because=because,
        oldest_runtime=oldest_runtime(
            as_operator(each, tensors[each.subgraph]) for each in operators
        ),
        remarks=tuple(remarks(model)),
    )


def _numbers(vector: np.ndarray | None) -> tuple[int, ...]:
    return () if vector is None else tuple(vector.tolist())


def _tensors(file: LiteRTFile, subgraph: int) -> list[TensorReport]:
    tables = file.model["subgraphs"][subgraph]["tensors"]
    return [_tensor(file, table, subgraph, i) for i, table in enumerate(tables)]


def _tensor(file: LiteRTFile, table: Record, subgraph: int, index: int) -> TensorReport:
    shape = _numbers(table["shape_signature"]) or _numbers(table["shape"])
    return TensorReport(
        subgraph=subgraph,
        index=index,
        name=table["name"] or "",
        shape=tuple(None if size < 0 else size for size in shape),
        dtype=element_type(table["type"]),
        quantization=_quantization(table["quantization"]),
        bytes=_bytes(file, table),
        is_constant=_is_constant(file, table),
        is_variable=table["is_variable"],
        is_sparse=table["sparsity"] is not None,
    )


def _quantization(table: Record | None) -> QuantizationReport | None:
    if table is None or table["scale"] is None or not table["scale"].size:
        return None
    return QuantizationReport(
        scale=tuple(table["scale"].tolist()),
        zero_point=_numbers(table["zero_point"]),
        axis=table["quantized_dimension"],
    )


def _is_constant(file: LiteRTFile, table: Record) -> bool:
    return file.data(table) is not None or table["external_buffer"] != 0


def _bytes(file: LiteRTFile, table: Record) -> int | None:
    """Returns the size of a tensor, or None if it is not known."""
    data = file.data(table)
    if data is not None:
        return len(data)
    return dense_bytes(_numbers(table["shape"]), element_type(table["type"]))


def _compressed_bytes(file: LiteRTFile, constants: Sequence[Record]) -> int:
    """Returns the size of constants after gzip, 0 without constants."""
    data = b"".join(bytes(file.data(tensor) or b"") for tensor in constants)
    return len(gzip.compress(data)) if data else 0


def _operator(file: LiteRTFile, subgraph: Record, number: int, index: int) -> OperatorReport:
    table = subgraph["operators"][index]
    inputs, outputs = _numbers(table["inputs"]), _numbers(table["outputs"])
    tensors: Sequence[Record] = subgraph["tensors"]
    shapes = [_numbers(tensors[i]["shape"]) if i >= 0 else None for i in inputs]
    name = file.operator_name(table)
    options = table["builtin_options"] or table["builtin_options2"]
    output = _numbers(tensors[outputs[0]]["shape"]) if outputs else ()
    used = dict.fromkeys(i for i in (*inputs, *outputs) if i >= 0)
    constants = [i for i in used if _is_constant(file, tensors[i])]
    return OperatorReport(
        subgraph=number,
        index=index,
        name=name,
        version=file.operator_code(table)["version"],
        inputs=inputs,
        outputs=outputs,
        options=_options(options) or file.custom_options(table),
        macs=operator_macs(name, shapes, output, options),
        weight_bytes=sum(_bytes(file, tensors[i]) or 0 for i in constants),
        compressed_bytes=_compressed_bytes(file, [tensors[i] for i in constants]),
        activation_bytes=sum(_bytes(file, tensors[i]) or 0 for i in used if i not in constants),
    )


def _options(table: Record | None) -> dict[str, Any]:
    return {name: _option(name, value) for name, value in (table or {}).items()}


def _option(name: str, value: Any) -> Any:
    enum = ENUMS.get(name)
    if enum is not None and isinstance(value, int):
        return name_of(enum, value)
    return value.tolist() if isinstance(value, np.ndarray) else value


ENUMS = {snake_case(name): enum for name, enum in ENUM_FIELDS.items()}


def _signature(table: Record) -> SignatureReport:
    inputs, outputs = (
        {entry["name"]: entry["tensor_index"] for entry in table[end] or ()}
        for end in ("inputs", "outputs")
    )
    return SignatureReport(table["signature_key"], table["subgraph_index"], inputs, outputs)


def _metadata(file: LiteRTFile, table: Record) -> MetadataReport:
    content = bytes(file.buffer_data(table["buffer"]) or b"")
    text = content.rstrip(b"\0").decode("latin-1")
    return MetadataReport(
        table["name"], len(content), text if text.isascii() and text.isprintable() else None
    )
