"""Converts the operators of a file to the objects that the writer takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.litert.format.element_types import element_type
from keras_qat.litert.format.flatbuffer import Record
from keras_qat.litert.format.schema_enums import name_of
from keras_qat.litert.format.types import Operator, Quantization, Tensor
from keras_qat.litert.reading.reader import LiteRTFile
from keras_qat.litert.writing.buffers import unpacked
from keras_qat.litert.writing.options import ENUM_FIELDS

_NO_SHAPE = np.zeros(0, "int32")


def file_operators(file: LiteRTFile) -> tuple[Operator, ...]:
    """Returns the operators of a file's first subgraph, in execution order.

    Tensors that several operators share are one object.

    Args:
        file: The file.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, read, to_bytes
        >>> from keras_qat.litert.reading.file_operators import file_operators
        >>> x, y = Tensor("x", (None, 8), "float32"), Tensor("y", (None, 8), "float32")
        >>> file = read(to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),))))
        >>> (operator,) = file_operators(file)
        >>> operator.code, operator.inputs[0].name, operator.outputs[0].shape
        ('RELU', 'x', (None, 8))
    """
    subgraph = file.model["subgraphs"][0]
    tensors = [_tensor(file, record) for record in subgraph["tensors"]]
    return tuple(_operator(file, record, tensors) for record in subgraph["operators"] or ())


def _operator(file: LiteRTFile, record: Record, tensors: Sequence[Tensor]) -> Operator:
    table = record["builtin_options"]
    options = {} if table is None else dict(_option(*field) for field in table.items())
    return Operator(
        code=file.operator_name(record),
        inputs=tuple(tensors[i] if i >= 0 else None for i in record.integers("inputs")),
        outputs=tuple(tensors[i] for i in record.integers("outputs")),
        version=file.operator_code(record)["version"],
        options=options or file.custom_options(record),
        intermediates=tuple(tensors[i] for i in record.integers("intermediates") if i >= 0),
    )


def _option(name: str, value: Any) -> tuple[str, Any]:
    name = re.sub("_(.)", lambda found: found[1].upper(), name)
    return name, name_of(ENUM_FIELDS[name], value) if name in ENUM_FIELDS else value


def _tensor(file: LiteRTFile, record: Record) -> Tensor:
    sizes = _NO_SHAPE if record["shape"] is None else record["shape"]
    signature = record["shape_signature"]
    dtype = element_type(record["type"])
    data = file.data(record)
    return Tensor(
        name=record["name"] or "",
        shape=tuple(
            None if size < 0 else int(size)
            for size in (signature if signature is not None and signature.size else sizes)
        ),
        dtype=dtype,
        quantization=_quantization(record["quantization"]),
        data=_constant(record, data, dtype, sizes) if data is not None else None,
        is_variable=bool(record["is_variable"]),
    )


def _constant(record: Record, data: Any, dtype: str, sizes: np.ndarray) -> np.ndarray | None:
    """Returns the values of a constant, or None if they are not a plain array."""
    if record["sparsity"] is not None or dtype not in np.sctypeDict:
        return None
    if dtype in ("int2", "int4"):
        return unpacked(data, math.prod(sizes), dtype).reshape(sizes)
    return np.frombuffer(data, np.dtype(dtype)).reshape(sizes)


def _quantization(record: Record | None) -> Quantization | None:
    if record is None or record["scale"] is None or not record["scale"].size:
        return None
    return Quantization(record["scale"], record["zero_point"], record["quantized_dimension"])
