"""Reads FlatBuffers by a description of their tables, and checks each offset before its use.

The library flatbuffers has a verifier in C++ but not in Python, and its Python accessors use every
offset of a file unchecked. https://flatbuffers.dev/internals/ describes the format and the
necessary checks. The limits are those of the verifier in C++ (`flatbuffers/verifier.h`).
"""

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_qat.litert.format.schema_tables import Field

SCALARS = {
    "bool": struct.Struct("<?"),
    "i8": struct.Struct("<b"),
    "u8": struct.Struct("<B"),
    "u16": struct.Struct("<H"),
    "i32": struct.Struct("<i"),
    "u32": struct.Struct("<I"),
    "i64": struct.Struct("<q"),
    "u64": struct.Struct("<Q"),
    "f32": struct.Struct("<f"),
    "subgraph": struct.Struct("<i"),
}
ELEMENTS = {
    "bool": "u1",
    "i8": "i1",
    "u8": "u1",
    "u16": "<u2",
    "i32": "<i4",
    "u32": "<u4",
    "i64": "<i8",
    "u64": "<u8",
    "f32": "<f4",
    "subgraph": "<i4",
}
MOST_TABLES = 1_000_000
LARGEST = 2**31 - 1  # the largest offset; data after it is not part of a FlatBuffer
_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class Damage(Exception):
    """Invalid bytes in a file.

    Args:
        where: The table and field, or the byte.
        what: The problem.
    """

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: {what}")
        self.where, self.what = where, what


class Record(dict[str, Any]):
    """The fields of one table by name. Absent fields have their defaults.

    Numbers are Python numbers and strings are `str`. Vectors of numbers are read-only arrays that
    share the file's bytes. Vectors of tables are tuples of records. An absent table, string or
    vector is `None`, and so is a union without a value.

    Attributes:
        table: Name of the table in the schema.
    """

    def __init__(self, table: str):
        super().__init__()
        self.table = table

    def integers(self, name: str) -> list[int]:
        """Returns a field that is a vector of integers as a list, empty if the field is absent.

        Args:
            name: Name of the field.
        """
        vector: np.ndarray | None = self[name]
        return [] if vector is None else vector.tolist()


def decode(
    content: bytes,
    tables: Mapping[str, Sequence[Field | None]],
    unions: Mapping[str, Sequence[str]],
    root: str,
) -> Record:
    r"""Reads and checks all tables of a FlatBuffer.

    Each table is read once, even if several fields refer to it. All objects together cannot be
    larger than twice the file. Therefore time and memory are in proportion to the size of the file.
    The description must not have tables that contain themselves, so the depth is bounded too.

    Args:
        content: The file.
        tables: The fields of each table, as `schema_tables.tables` describes them.
        unions: The tables that each union may hold, in the order of their type numbers. Number 0
            stands for no table. A type without a description is checked as a table without fields.
        root: Name of the root table.

    Returns:
        The root table.

    Raises:
        Damage: at the first offset, size or string that is not valid.

    Example:
        >>> from keras_qat.litert.format.flatbuffer import decode
        >>> from keras_qat.litert.format.schema_tables import Field
        >>> tables = {"Point": [Field(name, "i8", 0, False, False) for name in "xy"]}
        >>> content = bytes([12, 0, 0, 0, 8, 0, 6, 0, 5, 0, 4, 0, 8, 0, 0, 0, 7, 8])
        >>> dict(decode(content, tables, {}, "Point"))
        {'x': 8, 'y': 7}
    """
    return _Decoder(content, tables, unions).root(root)


class _Decoder:
    """Reads one FlatBuffer. Each method checks all bytes before it reads them."""

    def __init__(
        self,
        content: bytes,
        tables: Mapping[str, Sequence[Field | None]],
        unions: Mapping[str, Sequence[str]],
    ):
        self.content, self.tables, self.unions = content, tables, unions
        self.size = min(len(content), LARGEST)
        self.budget = 2 * self.size
        self.records: dict[tuple[int, str], Record] = {}
        self.vectors: dict[tuple[int, str], Any] = {}

    def root(self, name: str) -> Record:
        return self._table(name, self._offset(0, name), name)

    def _need(self, position: int, length: int, alignment: int, where: str) -> None:
        """Checks that bytes are inside the file and aligned."""
        if position + length > self.size:
            raise Damage(
                where,
                f"bytes {position} to {position + length} are needed, "
                f"but the file ends at {self.size}",
            )
        if position % alignment:
            raise Damage(where, f"byte {position} is not aligned to {alignment}")

    def _spend(self, length: int, where: str) -> None:
        """Counts the bytes of an object against the limit for all objects."""
        self.budget -= length
        if self.budget < 0:
            raise Damage(where, "the objects up to here overlap: together they exceed the file")

    def _offset(self, position: int, where: str) -> int:
        """Returns the position that an offset refers to."""
        self._need(position, 4, 4, where)
        (offset,) = _U32.unpack_from(self.content, position)
        target = position + offset
        if not 0 < offset <= LARGEST or target + 4 > self.size:
            raise Damage(where, f"the offset {offset} at byte {position} leads out of the file")
        return target

    def _table(self, name: str, position: int, where: str) -> Record:
        """Returns the table at a position, which is read once."""
        key = position, name
        if key not in self.records:
            if len(self.records) >= MOST_TABLES:
                raise Damage(where, f"there are more than {MOST_TABLES} tables")
            self.records[key] = self._new_table(name, position, where)
        return self.records[key]

    def _new_table(self, name: str, position: int, where: str) -> Record:
        self._need(position, 4, 4, where)
        vtable = position - _I32.unpack_from(self.content, position)[0]
        if vtable < 0:
            raise Damage(where, f"the vtable of the table at byte {position} lies at {vtable}")
        self._need(vtable, 4, 2, f"{where}, vtable")
        (length,) = _U16.unpack_from(self.content, vtable)
        if length < 4 or length % 2:
            raise Damage(where, f"the vtable at byte {vtable} cannot be {length} bytes long")
        self._need(vtable, length, 2, f"{where}, vtable")
        self._spend(4, where)
        record = Record(name)
        for slot, field in enumerate(self.tables.get(name, ())):
            if field is not None:
                at = 4 + 2 * slot
                offset = _U16.unpack_from(self.content, vtable + at)[0] if at < length else 0
                record[field.name] = (
                    self._value(field, position + offset, record, f"{where}.{field.name}")
                    if offset
                    else field.default
                )
        return record

    def _value(self, field: Field, position: int, record: Record, where: str) -> Any:
        """Returns the value of a field that is present."""
        if field.kind in SCALARS and not field.is_vector:
            scalar = SCALARS[field.kind]
            self._need(position, scalar.size, scalar.size, where)
            # A byte other than 0 and 1 is true in Python, too.
            return scalar.unpack_from(self.content, position)[0]
        target = self._offset(position, where)
        if field.is_vector:
            return self._vector(field.kind, target, where)
        if field.kind == "string":
            return self._string(target, where)
        if field.is_union:
            return self._union(field, target, record, where)
        return self._table(field.kind, target, where)

    def _union(self, field: Field, target: int, record: Record, where: str) -> Record | None:
        number: int = record[f"{field.name}_type"]
        if number == 0:
            return None
        members = self.unions[field.kind]
        known = number < len(members)
        return self._table(members[number] if known else f"{field.kind} {number}", target, where)

    def _span(self, position: int, width: int, where: str) -> tuple[int, int]:
        """Returns the first byte and the number of elements of the vector at `position`."""
        self._need(position, 4, 4, where)
        (count,) = _U32.unpack_from(self.content, position)
        self._need(position + 4, count * width, 1, where)
        self._spend(4 + count * width, where)
        return position + 4, count

    def _vector(self, kind: str, position: int, where: str) -> Any:
        key = position, f"[{kind}]"
        if key not in self.vectors:
            self.vectors[key] = self._new_vector(kind, position, where)
        return self.vectors[key]

    def _new_vector(self, kind: str, position: int, where: str) -> Any:
        if kind in ELEMENTS:
            dtype = np.dtype(ELEMENTS[kind])
            start, count = self._span(position, dtype.itemsize, where)
            return np.frombuffer(self.content, dtype, count, start)
        start, count = self._span(position, 4, where)
        read: Callable[[int, str], Any]
        read = self._string if kind == "string" else functools.partial(self._table, kind)
        return tuple(
            read(self._offset(start + 4 * i, f"{where}[{i}]"), f"{where}[{i}]")
            for i in range(count)
        )

    def _string(self, position: int, where: str) -> str:
        key = position, "string"
        if key not in self.vectors:
            self.vectors[key] = self._new_string(position, where)
        return self.vectors[key]

    def _new_string(self, position: int, where: str) -> str:
        start, count = self._span(position, 1, where)
        self._need(start + count, 1, 1, where)
        if self.content[start + count]:
            raise Damage(where, f"the string at byte {position} does not end with a zero byte")
        return self.content[start : start + count].decode("utf-8", "replace")
