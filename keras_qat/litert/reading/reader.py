"""Reads `.tflite` files of any origin, and checks all parts of them."""

import os
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.format.constants import buffer_data
from keras_qat.litert.format.custom_options import CUSTOM, custom_code, unpack_map
from keras_qat.litert.format.flatbuffer import Damage, Record, decode
from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.schema_enums import name_of, names
from keras_qat.litert.format.schema_tables import UNIONS, tables
from keras_qat.litert.reading.consistency import builtin_number, check_consistency
from keras_qat.litert.writing.writer import FILE_IDENTIFIER


@dataclass(frozen=True, eq=False)
class LiteRTFile:
    """A `.tflite` file that was read and is valid.

    Attributes:
        name: Path of the file, or a description for messages.
        content: All bytes of the file.
        model: The schema's `Model` table.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, read, to_bytes
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> file = read(to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),))))
        >>> [file.operator_name(operator) for operator in file.model["subgraphs"][0]["operators"]]
        ['RELU']
    """

    name: str
    content: bytes
    model: Record

    def operator_name(self, operator: Record) -> str:
        """Returns the name of a built-in or custom operator.

        Args:
            operator: An `Operator` table of this file.

        Returns:
            The schema's name, such as `"CONV_2D"`; `"CUSTOM(name)"`; or `"UNKNOWN(300)"` for a
            number that is not in the schema of the installed `ai-edge-litert`.
        """
        code = self.operator_code(operator)
        name = name_of("BuiltinOperator", builtin_number(code))
        return custom_code(code["custom_code"]) if name == CUSTOM else name

    def custom_options(self, operator: Record) -> dict[str, Any]:
        """Returns the options of a custom operator that operators.toml has.

        Args:
            operator: An `Operator` table of this file.

        Returns:
            Numbers by name. Empty for built-in operators and for custom operators of other tools.

        Raises:
            LiteRTFormatError: if the options cannot be read.
        """
        name = self.operator_name(operator)
        numbers, vector = declaration_of(name).numbers, operator["custom_options"]
        content = b"" if vector is None else vector.tobytes()
        try:
            return unpack_map(content, numbers) if numbers else {}
        except Damage as damage:
            raise damaged(self.name, f"{name}.{damage.where}", damage.what) from None

    def operator_code(self, operator: Record) -> Record:
        """Returns the `OperatorCode` table of an operator of this file."""
        return self.model["operator_codes"][operator["opcode_index"]]

    def data(self, tensor: Record) -> memoryview | None:
        """Returns the bytes of a constant, from inside or after the tables.

        Args:
            tensor: A `Tensor` table of this file.

        Returns:
            The bytes, or `None` if the tensor is computed, or its data is in another file.
        """
        return self.buffer_data(tensor["buffer"])

    @property
    def weight_bytes(self) -> int:
        """The total size of the buffers that tensors refer to, each counted once."""
        subgraphs = self.model["subgraphs"]
        used = {tensor["buffer"] for subgraph in subgraphs for tensor in subgraph["tensors"]}
        return sum(len(self.buffer_data(i) or b"") for i in used)

    def buffer_data(self, index: int) -> memoryview | None:
        """Returns the bytes of a buffer, or `None` if it is empty."""
        buffers = self.model["buffers"] or ()
        return buffer_data(buffers[index], self.content) if index < len(buffers) else None


@cache
def _unions() -> dict[str, tuple[str, ...]]:
    return {union: tuple(names(union).values()) for union in UNIONS}


def read(content_or_path: bytes | str | os.PathLike[str]) -> LiteRTFile:
    """Reads and checks a `.tflite` file. Nothing is run.

    Each offset and size is checked before it is used. Then the tables are checked against each
    other: the numbers of tensors, buffers, operators and subgraphs, the sizes of constants,
    quantization parameters, sparsity, the order of operators, and signatures.

    Args:
        content_or_path: The file's content, or its path.

    Returns:
        The file.

    Raises:
        LiteRTFormatError: if the file cannot be read, is not a `.tflite` file, or is damaged. The
            message names the file, the table and the field.

    Example:
        >>> from keras_qat.litert import read
        >>> read(b"not a model")
        Traceback (most recent call last):
        ...
        keras_qat.errors.LiteRTFormatError: The .tflite file '<11 bytes>' is damaged, ...
    """
    name, content = _content(content_or_path)
    try:
        if content[4:8] != FILE_IDENTIFIER:
            raise Damage("byte 4", f"TFL3 is expected here, not {bytes(content[4:8])!r}")
        file = LiteRTFile(name, content, decode(content, tables(), _unions(), "Model"))
        check_consistency(file.model, content)
    except Damage as damage:
        raise damaged(name, damage.where, damage.what) from None
    return file


def damaged(name: str, where: str, what: str) -> LiteRTFormatError:
    """Returns the error for a file that cannot be read.

    Args:
        name: Path of the file, or a description.
        where: The table and field.
        what: The problem.
    """
    return LiteRTFormatError(
        f"The .tflite file {name!r} is damaged, or is not a .tflite file.",
        expected="a file that follows LiteRT's schema, version 3",
        received=f"at {where}: {what}",
    )


def _content(content_or_path: bytes | str | os.PathLike[str]) -> tuple[str, bytes]:
    if isinstance(content_or_path, bytes):
        return f"<{len(content_or_path)} bytes>", content_or_path
    name = str(os.fspath(content_or_path))
    try:
        path = Path(content_or_path)
        if not stat.S_ISREG(path.stat().st_mode):  # reading a device or a pipe may never end
            raise LiteRTFormatError("This is not a regular file.", received=f"path={name!r}")
        return name, path.read_bytes()
    except LiteRTFormatError:  # also a ValueError
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise LiteRTFormatError(
            f"The file cannot be read: {reason}.", received=f"path={name!r}"
        ) from error
