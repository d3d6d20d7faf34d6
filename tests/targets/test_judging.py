"""Verdicts on operators written by hand. Other tests compare with the targets' compilers."""

import pytest

from keras_qat.targets import get_target, violations
from tests.targets.operators import constant, convolution, model_of, operator, tensor


def found(each, target):
    return violations(model_of(each), get_target(target))


def kinds(each, target):
    return [(violation.level, violation.code) for violation in found(each, target)]


RELU = operator("RELU", ((None, 8),), (None, 8), version=2)
GELU = operator("GELU", ((None, 8),), (None, 8), version=2)
CHANNELS = operator(
    "FULLY_CONNECTED",
    ((None, 4), tensor((2, 4), scales=(0.1, 0.2), name="w"), None),
    (None, 2),
    version=12,
)
TENSOR = operator("FULLY_CONNECTED", ((None, 4), tensor((2, 4)), None), (None, 2), version=4)
LOOKUP = [
    operator("CAST", ((None, 8),), (None, 8), dtype="int32", name="act/wide"),
]
LOOKUP.append(
    operator(
        "ADD",
        (LOOKUP[0].outputs[0], constant(128)),
        (None, 8),
        dtype="int32",
        name="act/index",
    )
)
LOOKUP.append(
    operator("GATHER", (tensor((256,), name="table"), LOOKUP[1].outputs[0]), (None, 8), name="act")
)


@pytest.mark.parametrize(
    ("each", "target", "expected"),
    [
        (RELU, "litert", []),
        (RELU, "tflite-micro", []),
        (RELU, "ethos-u", []),
        (RELU, "edgetpu", []),
        (GELU, "litert", []),
        (GELU, "tflite-micro", [("error", "target-operator")]),
        (GELU, "ethos-u", []),
        # The compiler does not know this version. LiteRT does.
        (GELU, "edgetpu", [("error", "target-operator")]),
        (operator("RELU", ((1, 8),), (1, 8), version=9), "litert", [("error", "target-version")]),
        # The compiler ignores versions.
        (operator("RELU", ((1, 8),), (1, 8), version=9), "tflite-micro", []),
        (CHANNELS, "litert", []),
        (CHANNELS, "tflite-micro", []),
        (CHANNELS, "ethos-u", []),
        (CHANNELS, "edgetpu", [("error", "target-limit")]),
        (TENSOR, "edgetpu", []),
        (operator("SHAPE", ((None, 8),), (2,), dtype="int32"), "tflite-micro", []),
        (
            operator("SHAPE", ((None, 8),), (2,), dtype="int32"),
            "ethos-u",
            [("warning", "target-operator")],
        ),
        (
            operator("FLOOR_DIV", ((1, 8), (1, 8)), (1, 8), dtype="int32"),
            "tflite-micro",
            [("error", "target-limit")],
        ),
        (
            convolution((None, 8, 8, 4), (3, 3), (None, 2, 2, 4), strideH=4, strideW=4),
            "ethos-u",
            [],
        ),
        (
            convolution(
                (None, 8, 8, 4), (7, 7), (None, 2, 2, 4), strideH=4, strideW=4, padding="SAME"
            ),
            "ethos-u",
            [("warning", "target-limit")],
        ),
        (
            operator("SOFTMAX", ((None, 5, 10),), (None, 5, 10), version=2),
            "edgetpu",
            [("warning", "target-limit")],
        ),
        (operator("SOFTMAX", ((None, 10),), (None, 10), version=2), "edgetpu", []),
    ],
    ids=str,
)
def test_violations_have_levels_and_codes(each, target, expected):
    assert kinds(each, target) == expected


def test_violations_of_uint8_are_on_microcontrollers_only():
    each = operator("RELU", (tensor((1, 8), "uint8"),), (1, 8), dtype="uint8")
    assert kinds(each, "tflite-micro") == [("error", "target-limit")]
    assert kinds(each, "ethos-u") == kinds(each, "edgetpu") == kinds(each, "litert") == []
    assert 'scheme="int8"' in found(each, "tflite-micro")[0].action


def test_violation_of_a_lookup_suggests_another_policy():
    lookup = model_of(*LOOKUP)
    for target, codes in (("ethos-u", ["CAST", "GATHER"]), ("edgetpu", ["CAST", "ADD", "GATHER"])):
        result = violations(lookup, get_target(target))
        assert [each.operator for each in result] == codes
        assert {each.layer for each in result} == {"act"}
        assert {each.level for each in result} == {"warning"}
        assert all('activations="substitute"' in each.action for each in result)
    assert not violations(lookup, get_target("tflite-micro"))


def test_violation_of_per_channel_dense_suggests_one_scale():
    (violation,) = found(CHANNELS, "edgetpu")
    assert 'overrides={keras.layers.Dense: "int8_per_tensor"}' in violation.action
    assert violation.expected == "per_channel False" and violation.received == "per_channel True"
    assert "refuses the whole file" in violation.consequence


NARROW = operator(
    "FULLY_CONNECTED",
    ((None, 4), tensor((2, 4), "int4", scales=(0.1, 0.2), name="w"), None),
    (None, 2),
    version=12,
)


@pytest.mark.parametrize("target", ["tflite-micro", "ethos-u"])
def test_violations_of_weights_of_4_bits_are_errors_with_a_fix(target):
    (violation,) = found(NARROW, target)
    assert violation.level == "error"
    assert "'int4'" in violation.received and 'scheme="int8"' in violation.action


def test_violation_of_a_computed_shape_is_fatal():
    shape = operator("SHAPE", ((None, 4, 4, 2),), (4,), dtype="int32", name="up/shape")
    kernel = tensor((2, 2, 2, 2), name="kernel")
    options = {"padding": "SAME", "strideH": 2, "strideW": 2}
    up = operator(
        "TRANSPOSE_CONV",
        (shape.outputs[0], kernel, shape.inputs[0]),
        (None, 8, 8, 2),
        version=3,
        name="up",
        **options,
    )
    result = {v.operator: v for v in violations(model_of(shape, up), get_target("edgetpu"))}
    assert result["TRANSPOSE_CONV"].level == "error"
    assert "UpSampling2D" in result["TRANSPOSE_CONV"].action
    assert result["SHAPE"].level == "warning"
    micro = violations(model_of(shape, up), get_target("tflite-micro"))
    assert not micro


def test_violation_text_is_complete():
    (violation,) = found(GELU, "tflite-micro")
    assert str(violation) == (
        "GELU ('layer') does not run there, or computes other values. tflite-micro has no such "
        'operator; received GELU version 2. Use `quantize_model(..., activations="lookup")`, which '
        "computes it by CAST, ADD and GATHER, if the target has these operators; or "
        '`activations="substitute"`, which replaces it by a hard-swish, and train afterwards.'
    )


def test_violations_are_in_the_order_of_operators():
    first = operator("GELU", ((1, 8),), (1, 8), name="a")
    second = operator("ELU", (first.outputs[0],), (1, 8), name="b")
    third = operator("GELU", (second.outputs[0],), (1, 8), name="c")
    result = violations(model_of(first, second, third), get_target("tflite-micro"))
    assert [each.tensor for each in result] == ["a", "c"]
