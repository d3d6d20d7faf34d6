"""verify of models with float layers: it names float tensors and finds differences."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from keras_qat.verification.report import FLOAT_TOLERANCE, LayerComparison

KINDS = {
    "image": "integer",
    "first": "integer",
    "first_float32": "float",
    "middle": "float",
    "middle_quantize": "after float",
    "last": "after float",
    "head": "after float",
}


def images():
    return np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="middle")(x)
    x = layers.Conv2D(4, 1, name="last")(x)
    float_model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)))
    model = keras_qat.quantize_model(float_model, overrides={"middle": None})
    keras_qat.calibrate(model, images(), verbose=0)
    return model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    keras_qat.export_litert(model, path)
    return path


def kinds(report, kernels="default"):
    return {name: row.kind for name, row in report.layers[kernels].items()}


def changed(path, folder, name):
    """Writes the file with a changed first value of a constant."""
    content = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    tensor = next(t for t in content.subgraphs[0].tensors if t.name == name.encode())
    data = content.buffers[tensor.buffer].data
    kind = "float32" if tensor.type == schema.TensorType.FLOAT32 else "int8"
    values = np.frombuffer(bytes(data), kind).copy()
    values[0] = values[0] + 1 if kind == "float32" else ~values[0]
    content.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), "uint8")
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(content.Pack(builder), b"TFL3")
    other = folder / "changed.tflite"
    other.write_bytes(bytes(builder.Output()))
    return other


def test_verify_names_the_kind_of_each_tensor(model, path):
    report = keras_qat.verify(model, path, images(), verbose=0)
    assert report.exact and not report.fully_integer
    found = kinds(report)
    assert {name: kind for name, kind in found.items() if name != "flat"} == KINDS
    assert report.verdict.startswith("EXACT, NOT FULLY INTEGER: default kernels: 0 of ")
    assert (
        f"0 of {16 * 8 * (4 * 4 + 2 * 2)} elements differ by more than {FLOAT_TOLERANCE:g}"
        in report.verdict
    )
    assert report.to_dict()["fully_integer"] is False
    assert "after float" in str(report)


@pytest.mark.parametrize(("name", "wrong"), [("middle/kernel", "middle"), ("last/kernel", "last")])
def test_verify_names_only_the_wrong_layer(model, path, tmp_path, name, wrong):
    other = changed(path, tmp_path, name)
    report = keras_qat.verify(model, other, images(), kernels="default", verbose=0)
    rows = report.layers["default"].values()
    assert [row.name for row in rows if row.mismatches] == [wrong]
    assert not report.exact and report.verdict.startswith("NOT EXACT, NOT FULLY INTEGER")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int8"])
def test_verify_of_a_float_layer_with_any_output_type(tmp_path, dtype):
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Flatten(name="flat")(layers.Conv2D(4, 3, name="conv")(inputs))
    float_model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    model = keras_qat.quantize_model(float_model, overrides={"conv": None, "head": None})
    keras_qat.calibrate(model, images(), verbose=0)
    path = tmp_path / "model.tflite"
    ends = {"inference_input_type": dtype, "inference_output_type": dtype}
    keras_qat.export_litert(model, path, **ends)
    report = keras_qat.verify(model, path, images(), verbose=0)
    assert report.exact
    assert report.outputs == ("head",)
    assert kinds(report)["head"] == ("float" if dtype == "float32" else "after float")
    assert kinds(report)["head" if dtype == "float32" else "head_float32"] == "float"


def test_verify_of_a_model_without_float_layers_is_fully_integer(tmp_path):
    inputs = keras.Input((6, 6, 3))
    model = keras_qat.quantize_model(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    keras_qat.calibrate(model, images(), verbose=0)
    keras_qat.export_litert(model, tmp_path / "m.tflite", inference_output_type="float32")
    report = keras_qat.verify(model, tmp_path / "m.tflite", images(), verbose=0)
    assert report.fully_integer and "NOT FULLY INTEGER" not in report.verdict


def test_layer_comparison_of_floats_has_a_relative_tolerance():
    class Real:
        scale = np.zeros(0, "float32")

    ours = np.array([1.0, 100.0], "float32")
    for off, wrong in ((0.5 * FLOAT_TOLERANCE, 0), (2 * FLOAT_TOLERANCE, 1)):
        row = LayerComparison("x", "float")
        row.add(ours, ours + np.array([100 * off, 0], "float32"), ours, Real())
        assert row.mismatches == wrong
