"""Our tables of the schema against its text and the classes generated from it."""

import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_qat.litert.format.custom_options import custom_name
from keras_qat.litert.format.flatbuffer import ELEMENTS, SCALARS
from keras_qat.litert.format.operator_versions import CONDITIONS
from keras_qat.litert.format.operators import declarations
from keras_qat.litert.format.schema_enums import names
from keras_qat.litert.format.schema_tables import UNIONS, snake_case, tables

GENERATED = {name: c for name, c in vars(schema).items() if hasattr(c, "GetRootAs")}

# As schema.fbs declares them: name, kind and default.
DECLARED = {
    "Conv2DOptions": [
        ("padding", "i8", 0),
        ("stride_w", "i32", 0),
        ("stride_h", "i32", 0),
        ("fused_activation_function", "i8", 0),
        ("dilation_w_factor", "i32", 1),
        ("dilation_h_factor", "i32", 1),
        ("quantized_bias_type", "i8", 0),
    ],
    "OperatorCode": [
        ("deprecated_builtin_code", "i8", 0),
        ("custom_code", "string", None),
        ("version", "i32", 1),
        ("builtin_code", "i32", 0),
    ],
    "Buffer": [("data", "[u8]", None), ("offset", "u64", 0), ("size", "u64", 0)],
    "ResizeBilinearOptions": [
        None,
        None,
        ("align_corners", "bool", False),
        ("half_pixel_centers", "bool", False),
    ],
    "SignatureDef": [
        ("inputs", "[TensorMap]", None),
        ("outputs", "[TensorMap]", None),
        ("signature_key", "string", None),
        None,
        ("subgraph_index", "u32", 0),
    ],
    "QuantizationParameters": [
        ("min", "[f32]", None),
        ("max", "[f32]", None),
        ("scale", "[f32]", None),
        ("zero_point", "[i64]", None),
        ("details_type", "u8", 0),
        ("details", "union QuantizationDetails", None),
        ("quantized_dimension", "i32", 0),
    ],
    "StablehloCaseOptions": [("branch_subgraph_indices", "[subgraph]", None)],
    "IfOptions": [("then_subgraph_index", "subgraph", 0), ("else_subgraph_index", "subgraph", 0)],
    "LeakyReluOptions": [("alpha", "f32", 0.0)],
    "QuantizeOptions": [],
}


def declaration(field):
    if field is None:
        return None
    kind = f"union {field.kind}" if field.is_union else field.kind
    return field.name, f"[{kind}]" if field.is_vector else kind, field.default


@pytest.mark.parametrize("table", DECLARED)
def test_schema_tables_have_the_fields_of_the_schema(table):
    assert [declaration(field) for field in tables()[table]] == DECLARED[table]


def test_schema_tables_have_as_many_slots_as_the_generated_builders():
    """The generated `...Start` functions contain the number of slots of a table."""

    class Builder:
        def StartObject(self, slots):
            self.slots = slots

    builder = Builder()
    for table, fields in tables().items():
        getattr(schema, f"{table}Start")(builder)
        assert builder.slots == len(fields), table


def test_schema_tables_are_all_of_the_generated_ones():
    assert tables().keys() == GENERATED.keys()
    assert len(GENERATED) > 150


def test_schema_tables_do_not_contain_themselves():
    """Therefore the depth of a file is bounded without a counter."""
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


def test_schema_unions_have_described_members_without_gaps():
    assert {f.kind for fields in tables().values() for f in fields if f and f.is_union} == set(
        UNIONS
    )
    for union in UNIONS:
        assert list(names(union)) == list(range(len(names(union))))
        assert set(names(union).values()) - {"NONE"} <= tables().keys()


def test_schema_field_kinds_are_known():
    kinds = {f.kind for fields in tables().values() for f in fields if f}
    assert kinds <= SCALARS.keys() | tables().keys() | set(UNIONS) | {"string"}
    assert SCALARS.keys() == ELEMENTS.keys()


def test_declarations_name_operators_and_options_of_the_schema():
    builtin = {code for code in declarations() if custom_name(code) is None}
    assert builtin <= set(names("BuiltinOperator").values())
    assert set(declarations()) - builtin == {"CUSTOM(TFLite_Detection_PostProcess)"}
    options = {each.options for each in declarations().values()}
    tables_of_options = {*names("BuiltinOptions").values(), *names("BuiltinOptions2").values()}
    assert options - {None} <= tables_of_options
    # The first name is not derived from the operator's name, the second is.
    assert declarations()["MAX_POOL_2D"].options == "Pool2DOptions"
    assert declarations()["TOPK_V2"].options == "TopKV2Options"
    assert declarations()["LOGISTIC"].options is None


def test_declarations_name_known_conditions():
    """A condition without a rule has to be the name of a field of the operator's options."""
    for code, declaration in declarations().items():
        fields = {f.name for f in tables().get(declaration.options or "", ()) if f}
        for condition in declaration.versions.values():
            assert condition in CONDITIONS or snake_case(condition) in fields, code
