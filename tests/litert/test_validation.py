import numpy as np
import pytest

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert import Model, Operator, Quantization, Tensor, to_bytes

X = Tensor("x", (1, 4), "int8")
Y = Tensor("y", (1, 4), "int8")
Z = Tensor("z", (1, 4), "int8")
C = Tensor("c", (1, 4), "int8", data=np.zeros((1, 4), np.int8))
ADD = Operator("ADD", (X, C), (Y,), 2, {"fusedActivationFunction": "NONE"})


def with_constant(*args, **kwargs):
    constant = Tensor("k", *args, **kwargs)
    return Model({"x": X}, {"y": Y}, (Operator("ADD", (X, constant), (Y,)),))


def quantized(scale, zero_point, axis=0):
    q = Quantization(np.asarray(scale), np.asarray(zero_point), axis)
    return with_constant((2, 4), "int8", q, np.zeros((2, 4), np.int8))


def operator(*args):
    return Model({"x": X}, {"y": Y}, (Operator(*args),))


INVALID = {
    "undefined input": (operator("ADD", (X, Z), (Y,)), "operator 0 .* not defined .*'z'"),
    "later output": (
        Model({"x": X}, {"y": Y}, (Operator("ADD", (X, Z), (Y,)), Operator("ADD", (X, X), (Z,)))),
        "not defined before",
    ),
    "own output": (operator("ADD", (X, Y), (Y,)), "not defined before"),
    "undefined model output": (Model({"x": X}, {"z": Z}, (ADD,)), "output 'z' is not defined"),
    "constant as model output": (Model({"x": X}, {"c": C}, (ADD,)), "'c' is not defined"),
    "constant as model input": (Model({"c": C}, {"c": C}, ()), "'c' cannot be model input"),
    "constant as output": (operator("ADD", (X, X), (C,)), "'c' cannot be output"),
    "input as output": (operator("ADD", (X, X), (X,)), "'x' cannot be output"),
    "output defined twice": (Model({"x": X}, {"y": Y}, (ADD, ADD)), "'y' cannot be output"),
    "one tensor as two inputs": (Model({"a": X, "b": X}, {"y": Y}, (ADD,)), "'x' cannot be"),
    "same name": (
        Model({"x": X}, {"y": Y}, (Operator("ADD", (X, Tensor("x", (1,), "int8")), (Y,)),)),
        "share a name",
    ),
    "empty name": (Model({"": Tensor("", (1,), "int8")}, {}, ()), "name is empty"),
    "unknown dtype": (with_constant((1,), "int7"), "int7"),
    "negative dimension": (with_constant((-1,), "int8"), "negative"),
    "data of another shape": (
        with_constant((4,), "int8", data=np.zeros((1, 4), np.int8)),
        r"Expected: shape=\(4,\), dtype=int8. Received: shape=\(1, 4\), dtype=int8",
    ),
    "data of another dtype": (
        with_constant((4,), "int8", data=np.zeros(4, np.int32)),
        "dtype=int32",
    ),
    "constant of dynamic shape": (
        with_constant((None,), "int8", data=np.zeros(4, np.int8)),
        "'k'",
    ),
    "scale not float32": (
        quantized(np.array([1.0], np.float64), np.array([0], np.int64)),
        "float32",
    ),
    "zero point not int64": (
        quantized(np.array([1.0], np.float32), np.array([0], np.int32)),
        "int64",
    ),
    "zero points missing": (
        quantized(np.array([1.0, 1.0], np.float32), np.array([0], np.int64)),
        "one length",
    ),
    "scalar scale": (quantized(np.float32(1.0), np.int64(0)), "vectors"),
    "scale of zero": (quantized(np.array([0.0], np.float32), np.array([0], np.int64)), "positive"),
    "scale of nan": (quantized(np.array([np.nan], np.float32), np.array([0], np.int64)), "finite"),
    "scales of another number": (
        quantized(np.array([1.0] * 3, np.float32), np.array([0] * 3, np.int64)),
        "number",
    ),
    "scales of another axis": (
        quantized(np.array([1.0] * 2, np.float32), np.array([0] * 2, np.int64), 1),
        "number",
    ),
    "axis out of range": (
        quantized(np.array([1.0] * 2, np.float32), np.array([0] * 2, np.int64), 2),
        "number",
    ),
    "version 0": (operator("ADD", (X, X), (Y,), 0), "version=0"),
    "unknown operator": (operator("ADDD", (X, X), (Y,)), "ADDD"),
    "operator without options": (operator("RELU", (X,), (Y,), 1, {"a": 1}), "has no options"),
    "unknown field": (operator("ADD", (X, X), (Y,), 1, {"axis": 1}), "axis=1"),
    "unknown enum name": (
        operator("ADD", (X, X), (Y,), 1, {"fusedActivationFunction": "ELU"}),
        "ELU",
    ),
    "enum by number": (
        operator("ADD", (X, X), (Y,), 1, {"fusedActivationFunction": 1}),
        "RELU6",
    ),
    "enum by list": (
        operator("ADD", (X, X), (Y,), 1, {"fusedActivationFunction": ["RELU"]}),
        "RELU6",
    ),
    "fractional integer": (
        operator("CONV_2D", (X, X), (Y,), 1, {"strideH": 1.5}),
        r"strideH cannot hold that value. Expected: int. Received: 1.5",
    ),
    "text for an integer": (
        operator("CONV_2D", (X, X), (Y,), 1, {"strideH": "one"}),
        "strideH",
    ),
    "integer beyond its field": (
        operator("CONV_2D", (X, X), (Y,), 1, {"strideH": 2**40}),
        "does not fit",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_to_bytes_refuses_invalid_models(name):
    model, message = INVALID[name]
    with pytest.raises(LiteRTFormatError, match=message):
        to_bytes(model)


def test_to_bytes_takes_an_input_that_is_an_output():
    assert to_bytes(Model({"x": X}, {"x": X, "y": Y}, (ADD,)))


def test_to_bytes_takes_one_scale_with_any_axis():
    assert to_bytes(quantized(np.array([1.0], np.float32), np.array([0], np.int64), 3))
