"""The names of a file's inputs and outputs. The oracle is LiteRT's interpreter."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import keras_qat
from keras_qat.errors import InvalidDataError
from keras_qat.litert import Model, Operator, Tensor, to_bytes
from keras_qat.lowering.io_names import name_tensors
from keras_qat.lowering.io_types import INFERENCE_TYPES
from tests.models import called

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def parts():
    x = keras.Input((4,), name="x")
    hidden = layers.Dense(4, activation="relu", name="hidden")(x)
    return x, hidden, layers.Dense(3, name="head")(hidden)


def activation_of_a_layer():
    x, hidden, _ = parts()
    return keras.Model(x, layers.Dense(3, activation="softmax", name="probs")(hidden))


def two_heads_one_consumed():
    x, hidden, head = parts()
    return keras.Model(x, [hidden, head])


def one_tensor_twice():
    x, _, head = parts()
    return keras.Model(x, [head, layers.Dropout(0.5, name="drop")(head)])


def dict_of_other_names():
    x, hidden, head = parts()
    return keras.Model(x, {"scores": head, "features": hidden})


def dict_of_names_of_other_layers():
    x, hidden, head = parts()
    return keras.Model(x, {"hidden": head, "head": hidden, "x": layers.ReLU(name="relu")(head)})


def dict_of_one_tensor_twice():
    x, _, head = parts()
    return keras.Model(x, {"scores": head, "again": head})


def names_with_types():
    """Makes layers with the names that the export gives to inner and outer tensors."""
    x = keras.Input((4,), name="x")
    first = layers.Dense(4, name="head_int8")(x)
    second = layers.Dense(4, name="head_float32")(first)
    return keras.Model(x, layers.Dense(3, name="head")(second))


def input_is_output():
    x, _, head = parts()
    return keras.Model(x, [head, x])


# Each model, with the names of the file's outputs.
MODELS = {
    activation_of_a_layer: ["probs"],
    two_heads_one_consumed: ["hidden", "head"],
    one_tensor_twice: ["head", "head"],
    dict_of_other_names: ["scores", "features"],
    dict_of_names_of_other_layers: ["hidden", "head", "x_1"],  # the input is x
    dict_of_one_tensor_twice: ["scores", "scores"],
    names_with_types: ["head"],
}


def quantized(model):
    result = keras_qat.quantize_model(model)
    keras_qat.calibrate(result, X, verbose=0)
    return result


@pytest.fixture(scope="module", params=MODELS, ids=lambda function: function.__name__)
def case(request):
    model = quantized(request.param())
    return model, MODELS[request.param], named_values(model)


def named_values(model):
    values = called(model, X)
    if isinstance(values, dict):
        return values
    return dict(
        zip(model.output_names, values if isinstance(values, list) else [values], strict=True)
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", INFERENCE_TYPES)
def test_export_litert_names_ends_as_the_signature_does(kind, case, tmp_path):
    (model, names, expected), path = case, tmp_path / "model.tflite"
    keras_qat.export_litert(model, path, inference_input_type=kind, inference_output_type=kind)
    file = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    assert [each["name"] for each in file.get_input_details()] == ["x"]
    assert [each["name"] for each in file.get_output_details()] == names
    inner = [each["name"] for each in file.get_tensor_details()]
    assert len(set(inner)) == len(inner)
    # For each name of the signature, the file has the values of Keras.
    runner = file.get_signature_runner("serving_default")
    assert runner.get_output_details().keys() == expected.keys()
    scale, zero = runner.get_input_details()["x"]["quantization"]
    x = X
    if kind != "float32":
        limits = np.iinfo(kind)
        steps = np.round(X.astype("float64") / scale) + zero
        x = np.clip(steps, limits.min, limits.max).astype(kind)
    for name, values in runner(x=x).items():
        scale, zero = runner.get_output_details()[name]["quantization"]
        real = (
            values if kind == "float32" else (values.astype("float32") - zero) * np.float32(scale)
        )
        np.testing.assert_array_equal(real, expected[name])
    report = keras_qat.verify(model, path, X, verbose=0)
    assert report.exact and report.outputs == tuple(dict.fromkeys(names))
    # Every layer has a row, converted or not.
    integers = {each.name for each in model.layers if getattr(each, "makes_operator", False)}
    assert len(report.layers["default"]) >= len(integers) + 1


def test_verify_refuses_a_file_of_other_names(tmp_path):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized(two_heads_one_consumed()), path)
    with pytest.raises(InvalidDataError, match="not exported from this.*'scores'.* To fix it"):
        keras_qat.verify(quantized(dict_of_other_names()), path, X, verbose=0)


def test_name_tensors_renames_inner_tensors_with_the_name_of_an_output():
    x, a, b = (Tensor(name, (1, 4), "float32") for name in ("x", "y", "y_float32"))
    y = Tensor("y_float32", (1, 4), "float32")
    operators = (
        Operator("RELU", (x,), (a,)),
        Operator("RELU", (a,), (b,)),
        Operator("RELU", (b,), (y,)),
    )
    named = name_tensors(Model({"x": x}, {"y": y}, operators))
    names = [operator.outputs[0].name for operator in named.operators]
    assert names == ["y_float32_1", "y_float32", "y"]
    Interpreter(model_content=to_bytes(named)).allocate_tensors()
