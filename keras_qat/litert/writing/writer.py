"""Converts a `Model` to a `.tflite` file, with the schema classes of `ai-edge-litert`.

The format is LiteRT's FlatBuffers schema, version 3
(https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs).
"""

import os
import secrets
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from keras_qat.errors import ExportError, LiteRTFormatError
from keras_qat.litert.format.custom_options import CUSTOM, custom_name
from keras_qat.litert.format.operator_versions import minimum_runtime_version
from keras_qat.litert.format.types import Model, Operator, Quantization, Tensor
from keras_qat.litert.writing.buffers import AlignedBuffer, constant_bytes
from keras_qat.litert.writing.options import enum_value, options_fields
from keras_qat.litert.writing.static_shapes import static_shape, unknown_sizes
from keras_qat.litert.writing.validation import model_tensors, validate

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
SIGNATURE_KEY = "serving_default"
_NO_TENSOR = -1
_LAST_DEPRECATED_CODE = 127  # largest code in the one-byte field, for runtimes before 2.4


def to_bytes(model: Model) -> bytes:
    """Turns a model into the content of a `.tflite` file.

    The same model gives the same bytes. Constant data is aligned to 16 bytes. The file states a
    `min_runtime_version` if the first runtime release of every operator is known (see
    `keras_qat.litert.format.operator_versions`).

    Args:
        model: The model. It is checked first (see `keras_qat.litert.writing.validation.validate`).

    Returns:
        The content of the file.

    Raises:
        LiteRTFormatError: if the model is inconsistent, names an unknown operator, option or enum
            member, or is too large for the format (2 GiB).

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, to_bytes
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> model = Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),))
        >>> to_bytes(model)[4:8]
        b'TFL3'
    """
    validate(model)
    return finish(_Assembly(model).model_table())


def write(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes a whole model to a `.tflite` file, or nothing if an error occurs.

    Args:
        model: The model. It is checked first.
        path: Path of the file. An existing file is replaced in one step.

    Raises:
        LiteRTFormatError: for the same reasons as in `to_bytes`.
        ExportError: if the file cannot be written. An existing file is then not changed.

    Example:
        >>> import pathlib, tempfile
        >>> from keras_qat.litert import Model, Operator, Tensor, write
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.tflite"
        >>> write(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)), path)
        >>> path.read_bytes()[4:8]
        b'TFL3'
    """
    content = to_bytes(model)
    target = _checked(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # for a name with a null byte
        raise ExportError(
            f"The model cannot be written: {getattr(error, 'strerror', None) or error}.",
            received=f"path={str(target)!r}",
            fix="Give the path of a file in a directory that exists and can be written to.",
        ) from error


def _checked(path: Any) -> Path:
    """Returns the path of a file. The file need not exist."""
    if isinstance(path, (str, os.PathLike)):
        named = Path(cast("str | os.PathLike[str]", path))
        if named.name:
            return named
    raise ExportError(
        "`filepath` is not a path.",
        received=f"path={path!r}",
        expected='a str or a path, such as "model.tflite"',
        fix="Give the path of a file in a directory that exists.",
    )


def finish(table: Any) -> bytes:
    """Packs a complete `ModelT` into the content of a file.

    Args:
        table: The schema's object-API model, whose buffers must be `AlignedBuffer`s.

    Returns:
        The content of the file.

    Raises:
        LiteRTFormatError: if a value does not fit its field, or the file would exceed 2 GiB.

    Example:
        >>> from ai_edge_litert import schema_py_generated as schema
        >>> from keras_qat.litert.writing.writer import finish
        >>> finish(schema.ModelT(version=3))[4:8]
        b'TFL3'
    """
    from flatbuffers.builder import BuilderSizeError

    from keras_qat.litert.writing.sharing import SharingBuilder

    builder = SharingBuilder(1024)
    try:
        builder.Finish(table.Pack(builder), file_identifier=FILE_IDENTIFIER)
    except (TypeError, ValueError, struct.error, BuilderSizeError) as error:
        raise LiteRTFormatError(f"The model does not fit the file format: {error}") from error
    return bytes(builder.Output())


class _Assembly:
    """The tables of one file, with the numbers of tensors and operator codes."""

    def __init__(self, model: Model):
        self.model = model
        self.tensors = model_tensors(model)
        self.unknown_sizes = unknown_sizes(model)
        self.tensor_index = {tensor: i for i, tensor in enumerate(self.tensors)}
        kinds = dict.fromkeys((op.code, op.version) for op in model.operators)
        self.code_index = {kind: i for i, kind in enumerate(kinds)}
        self.buffers = [AlignedBuffer()]  # number 0 is empty by convention, for activations
        self.buffer_index: dict[bytes, int] = {}
        self.quantizations: dict[tuple[bytes, bytes, int], Any] = {}

    def model_table(self) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        return schema.ModelT(
            version=SCHEMA_VERSION,
            description=self.model.description,
            operatorCodes=[_operator_code(*kind) for kind in self.code_index],
            subgraphs=[self._subgraph()],
            signatureDefs=[self._signature()],
            metadata=self._metadata(),
            buffers=self.buffers,
        )

    def _subgraph(self) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        return schema.SubGraphT(
            name="main",
            tensors=[self._tensor(tensor) for tensor in self.tensors],
            inputs=self._indices(self.model.inputs.values()),
            outputs=self._indices(self.model.outputs.values()),
            operators=[self._operator(operator) for operator in self.model.operators],
        )

    def _tensor(self, tensor: Tensor) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        table = schema.TensorT(
            name=tensor.name,
            shape=np.array(static_shape(tensor, self.unknown_sizes), "<i4"),
            type=enum_value("TensorType", tensor.dtype.upper(), f"tensor {tensor.name!r}"),
            buffer=0 if tensor.data is None else self._buffer(constant_bytes(tensor.data)),
            hasRank=True,
            isVariable=tensor.is_variable,
        )
        if None in tensor.shape:
            signature = [-1 if size is None else size for size in tensor.shape]
            table.shapeSignature = np.array(signature, "<i4")
        if tensor.quantization is not None:
            table.quantization = self._quantization(tensor.quantization)
        return table

    def _quantization(self, quantization: Quantization) -> Any:
        """Returns the table of a tensor's parameters, shared by tensors with equal parameters."""
        from ai_edge_litert import schema_py_generated as schema

        from keras_qat.litert.writing.sharing import SharedTable

        scale = np.ascontiguousarray(quantization.scale, "<f4")
        zero_point = np.ascontiguousarray(quantization.zero_point, "<i8")
        key = scale.tobytes(), zero_point.tobytes(), quantization.axis
        if key not in self.quantizations:
            self.quantizations[key] = SharedTable(
                schema.QuantizationParametersT(
                    scale=scale, zeroPoint=zero_point, quantizedDimension=quantization.axis
                )
            )
        return self.quantizations[key]

    def _operator(self, operator: Operator) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        return schema.OperatorT(
            opcodeIndex=self.code_index[operator.code, operator.version],
            inputs=self._indices(operator.inputs),
            outputs=self._indices(operator.outputs),
            intermediates=self._indices(operator.intermediates) or None,
            **options_fields(operator),
        )

    def _signature(self) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        def maps(names: Mapping[str, Tensor]) -> list[Any]:
            return [schema.TensorMapT(name, self.tensor_index[t]) for name, t in names.items()]

        return schema.SignatureDefT(
            signatureKey=SIGNATURE_KEY,
            inputs=maps(self.model.inputs),
            outputs=maps(self.model.outputs),
        )

    def _metadata(self) -> list[Any]:
        from ai_edge_litert import schema_py_generated as schema

        release = minimum_runtime_version(self.code_index)
        if release is None:
            return []
        content = release.encode("ascii").ljust(16, b"\0")
        return [schema.MetadataT("min_runtime_version", self._buffer(content))]

    def _buffer(self, content: bytes) -> int:
        """Returns the number of the buffer with these bytes. Equal constants share a buffer."""
        if content not in self.buffer_index:
            self.buffer_index[content] = len(self.buffers)
            self.buffers.append(AlignedBuffer(content))
        return self.buffer_index[content]

    def _indices(self, tensors: Iterable[Tensor | None]) -> list[int]:
        return [_NO_TENSOR if t is None else self.tensor_index[t] for t in tensors]


def _operator_code(code: str, version: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    custom = custom_name(code)
    builtin = code if custom is None else CUSTOM
    number = enum_value("BuiltinOperator", builtin, f"operator {code!r}")
    return schema.OperatorCodeT(
        builtinCode=number,
        deprecatedBuiltinCode=min(number, _LAST_DEPRECATED_CODE),
        customCode=custom,
        version=version,
    )
