"""The tables of LiteRT's FlatBuffers schema: their fields, in the order of their slots.

The description comes from the classes that `ai-edge-litert` generates from the schema. Each
accessor of these classes is called with a probe instead of a file. The probe records the slot and
the type that the accessor reads. The description is therefore that of the installed release.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

KINDS = {
    "BoolFlags": "bool",
    "Int8Flags": "i8",
    "Uint8Flags": "u8",
    "Uint16Flags": "u16",
    "Int32Flags": "i32",
    "Uint32Flags": "u32",
    "Int64Flags": "i64",
    "Uint64Flags": "u64",
    "Float32Flags": "f32",
}
# Facts that the classes lack: the union of a field, and which fields are numbers of subgraphs.
_UNIONS = {
    "builtin_options": "BuiltinOptions",
    "builtin_options2": "BuiltinOptions2",
    "details": "QuantizationDetails",
    "array_segments": "SparseIndexVector",
    "array_indices": "SparseIndexVector",
}
UNIONS = tuple(dict.fromkeys(_UNIONS.values()))
_SUBGRAPH = re.compile(r"subgraph(_index|_indices)?$|^called_computations$")
_VARIANTS = re.compile(r"(AsNumpy|Length|IsNone)$")


@dataclass(frozen=True)
class Field:
    """One field of a table.

    Attributes:
        name: Name in the schema.
        kind: A number (`"bool"`, `"i8"` to `"f32"`), `"string"`, the name of a table or of a union,
            or `"subgraph"` for an i32 that is the number of a subgraph.
        default: Value of the field if a file omits it.
        is_vector: Whether the field holds a vector of that kind.
        is_union: Whether `kind` is the name of a union. The field before it holds the type.
    """

    name: str
    kind: str
    default: Any
    is_vector: bool
    is_union: bool


@cache
def tables() -> dict[str, tuple[Field | None, ...]]:
    """Returns the fields of each table by the table's name; `None` for deprecated fields.

    Example:
        >>> from keras_qat.litert.format.schema_tables import tables
        >>> [field.name for field in tables()["Buffer"]]
        ['data', 'offset', 'size']
    """
    from ai_edge_litert import schema_py_generated as schema

    described: dict[str, tuple[Field | None, ...]] = {}
    for table, generated in vars(schema).items():
        if hasattr(generated, "GetRootAs"):
            fields = dict(_field(table, *each) for each in _accessors(generated))
            described[table] = tuple(map(fields.get, range(max(fields, default=-1) + 1)))
    return described


def snake_case(name: str) -> str:
    """Returns a name of the generated classes as the schema writes it.

    Example:
        >>> from keras_qat.litert.format.schema_tables import snake_case
        >>> snake_case("BuiltinOptions2Type"), snake_case("dilationWFactor")
        ('builtin_options2_type', 'dilation_w_factor')
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _accessors(generated: type) -> Iterator[tuple[str, Any]]:
    """Yields the name and the accessor of each field."""
    methods: Mapping[str, Any] = vars(generated)
    for name, method in methods.items():
        is_variant = _VARIANTS.search(name) and _VARIANTS.sub("", name) in methods
        if inspect.isfunction(method) and name not in ("__init__", "Init") and not is_variant:
            yield name, method


def _field(table: str, accessor_name: str, accessor: Any) -> tuple[int, Field]:
    """Returns the slot and the description of a field, as a probe records them."""
    name, probe = snake_case(accessor_name), _Probe()
    holder = SimpleNamespace(_tab=probe)
    index = (0,) * (accessor.__code__.co_argcount - 1)  # accessors of vectors take an index
    default = accessor(holder, *index)
    probe.offset = 1
    value = accessor(holder, *index)
    is_union = probe.kind == "union"
    kind = _UNIONS[name] if is_union else probe.kind or type(value).__name__
    if kind in ("i32", "u32") and table.endswith("Options") and _SUBGRAPH.search(name):
        kind = "subgraph"
    is_scalar = probe.kind in KINDS.values() and not index
    return probe.slot, Field(name, kind, default if is_scalar else None, bool(index), is_union)


class _Probe:
    """Replaces `flatbuffers.table.Table`. Either no field is present, or each requested one."""

    Bytes, Pos = b"", 0

    def __init__(self):
        self.offset, self.slot, self.kind = 0, -1, ""

    def Offset(self, position: int) -> int:
        self.slot = (position - 4) // 2
        return self.offset

    def Get(self, flags: Any, position: int) -> int:
        del position
        self.kind = KINDS[flags.__name__]
        return 0

    def String(self, position: int) -> bytes:
        del position
        self.kind = "string"
        return b""

    def Union(self, table: Any, position: int) -> None:
        del table, position
        self.kind = "union"

    def Vector(self, position: int) -> int:
        return position

    Indirect = Vector
