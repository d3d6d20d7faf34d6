"""The description of the schema against the classes that are generated from it."""

import importlib.metadata
import inspect
import re

import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_qat.litert.flatbuffer import ELEMENTS, SCALARS
from keras_qat.litert.operands import operands
from keras_qat.litert.reader import UNIONS
from keras_qat.litert.schema_enums import names
from keras_qat.litert.schema_tables import tables

FLAGS = {
    "Bool": "bool",
    "Int8": "i8",
    "Uint8": "u8",
    "Uint16": "u16",
    "Int32": "i32",
    "Uint32": "u32",
    "Int64": "i64",
    "Uint64": "u64",
    "Float32": "f32",
}
VERSION = tuple(map(int, importlib.metadata.version("ai-edge-litert").split(".")[:2]))
OF_THIS_SCHEMA = pytest.mark.skipif(VERSION < (2, 3), reason="older schemas have fewer fields")
GENERATED = {name: c for name, c in vars(schema).items() if hasattr(c, "GetRootAs")}


def accessors(table):
    """Slot, name and kind of each field, read from the source of its accessor."""
    for name, function in vars(GENERATED[table]).items():
        source = inspect.getsource(function) if inspect.isfunction(function) else ""
        slot = re.search(r"_tab\.Offset\((\d+)\)", source)
        if slot is None or re.search(r"VectorLen|AsNumpy|return o == 0", source):
            continue
        flags = [f for f in re.findall(r"number_types\.(\w+)Flags", source) if f != "UOffsetT"]
        made = re.search(r"obj = (\w+)\(\)", source)
        if "_tab.Union" in source:
            kind = "union"
        elif made:
            kind = made[1]
        else:
            kind = "string" if "_tab.String" in source else FLAGS[flags[-1]]
        default = re.findall(r"return ([-\w.]+)\n", source)
        plain = not ("Vector(" in source or made or kind in ("union", "string"))
        number = eval(default[-1]) if plain else None  # a literal of the generated source
        yield (int(slot[1]) - 4) // 2, name, kind, "Vector(" in source, number


def described(field):
    kind = "union" if field.is_union else field.kind
    return field.name.replace("_", ""), kind, field.is_vector, field.default


def subgraph_or(kind, described_kind):
    """What the description calls a subgraph is an integer to the generated classes."""
    return "subgraph" if described_kind == "subgraph" and kind in ("i32", "u32") else kind


@OF_THIS_SCHEMA
@pytest.mark.parametrize("table", GENERATED)
def test_each_field_is_described(table):
    generated = {slot: found for slot, *found in accessors(table)}
    fields = {slot: described(f) for slot, f in enumerate(tables()[table]) if f is not None}
    assert fields == {
        slot: (str(name).lower(), subgraph_or(kind, fields[slot][1]), is_vector, default)
        for slot, (name, kind, is_vector, default) in generated.items()
    }


@OF_THIS_SCHEMA
def test_nothing_else_is_described():
    assert tables().keys() == GENERATED.keys()


def test_no_table_contains_itself():
    """The depth of a file has a bound without being counted."""
    inside = {
        name: {kind for f in fields if f for kind in [f.kind, *members(f)] if kind in tables()}
        for name, fields in tables().items()
    }
    while inside:
        leaves = {name for name, kinds in inside.items() if not kinds & inside.keys()}
        assert leaves, f"one of {sorted(inside)} contains itself"
        inside = {name: kinds for name, kinds in inside.items() if name not in leaves}


def members(field):
    return names(field.kind).values() if field.is_union else ()


def test_members_of_unions_are_described_and_numbered_without_gaps():
    assert {f.kind for fields in tables().values() for f in fields if f and f.is_union} == set(
        UNIONS
    )
    for union in UNIONS:
        assert list(names(union)) == list(range(len(names(union))))
        assert set(names(union).values()) - {"NONE"} <= tables().keys()


def test_kinds_are_numbers_strings_tables_or_unions():
    kinds = {f.kind for fields in tables().values() for f in fields if f}
    assert kinds <= SCALARS.keys() | tables().keys() | set(UNIONS) | {"string"}
    assert SCALARS.keys() == ELEMENTS.keys()


def test_known_operands_are_of_known_operators():
    assert set(operands()) <= set(names("BuiltinOperator").values())
    assert {o.options for o in operands().values()} - {None} <= set(
        names("BuiltinOptions").values()
    )
