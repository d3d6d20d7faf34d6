"""The differences that `verify` finds, and the proof if it finds no difference."""

import json

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from keras_qat.errors import (
    InvalidDataError,
    LiteRTFormatError,
    MissingRangeError,
    NotQuantizedError,
)
from tests.models import (
    images,
    labels,
    linear,
    quantized,
    quantized_network,
    quantized_small_network,
    small_images,
    small_network,
)

LAYERS = ["image", "conv", "depthwise", "add", "pool", "mean", "head_int8", "head"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    keras_qat.export_litert(quantized_network(), path)
    return path


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "model.tflite"
    keras_qat.export_litert(quantized_small_network(), path)
    return path


@pytest.fixture(scope="module")
def report(path):
    return keras_qat.verify(quantized_network(), path, images(), verbose=0)


def proven(model, path, data):
    return keras_qat.verify(model, path, data, kernels="default", verbose=0)


def test_verify_of_an_exported_model_is_exact(report):
    assert report.exact and report.mismatches() == 0
    assert report.verdict.startswith("EXACT: default kernels: 0 of 16608 elements differ in 8")
    assert "reference kernels: " in report.verdict
    assert report.samples == 16 and report.agreement["default"] == 16


def test_verify_has_a_row_per_layer_and_set_of_kernels(report):
    for kernels in ("reference", "default"):
        rows = report.layers[kernels]
        assert list(rows) == LAYERS
        assert rows["conv"].elements == 16 * 8 * 8 * 4 and rows["head"].elements == 16 * 5
    text = str(report)
    assert all(f" {name} " in text for name in LAYERS)
    assert text.count("default kernels") == 2 and text.endswith(report.verdict)


def test_verify_noise_is_that_of_eight_bits(report):
    rows = report.layers["default"]
    assert all(30 < row.sqnr < 70 for row in rows.values())
    # Rounding to steps of s makes noise of s^2 / 12.
    image = rows["image"]
    assert image.noise / image.elements == pytest.approx((1 / 255) ** 2 / 12, rel=0.1)
    assert image.signal == pytest.approx(float(np.square(images(), dtype="float64").sum()))


def test_verify_report_is_json(report):
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["exact"] is True and content["samples"] == 16
    assert [row["name"] for row in content["layers"]["reference"]] == LAYERS
    assert set(content["layers"]["reference"][0]) >= {"elements", "mismatches", "sqnr"}


def test_verify_prints_its_table_on_request(small_path, capsys):
    model = quantized_small_network()
    report = keras_qat.verify(model, small_path, small_images(2), kernels="default")
    assert report.verdict in capsys.readouterr().out
    proven(model, small_path, small_images(2))
    assert capsys.readouterr().out == ""


def changed(content, name, position=0):
    """Returns the file with one changed byte of a constant."""
    root = schema.Model.GetRootAs(content)
    graph = root.Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    tensor = next(tensor for tensor in tensors if tensor.Name() == name)
    data = root.Buffers(tensor.Buffer()).DataAsNumpy()
    start = data.ctypes.data - np.frombuffer(content, np.uint8).ctypes.data + position
    other = (content[start] + 64) % 256
    return content[:start] + bytes([other]) + content[start + 1 :]


@pytest.mark.parametrize(
    ("constant", "layer"),
    [(b"conv/kernel", "conv"), (b"conv/bias", "conv"), (b"head/bias", "head_int8")],
)
def test_verify_finds_the_layer_of_a_changed_byte(constant, layer, small_path, tmp_path):
    other = tmp_path / "changed.tflite"
    other.write_bytes(changed(small_path.read_bytes(), constant))
    report = proven(quantized_small_network(), other, small_images())
    assert not report.exact and report.verdict.startswith("NOT EXACT: ")
    rows = report.layers["default"]
    first = next(name for name, row in rows.items() if row.mismatches)
    assert first == layer and rows[layer].largest_difference >= 1
    assert report.mismatches() == sum(row.mismatches for row in rows.values()) > 0


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    """Makes a model with layers of many operators, and its file."""
    x = keras.Input((6, 8))
    y = layers.LayerNormalization(name="norm")(layers.Dense(8, name="dense")(x))
    model = keras.Model(x, layers.Activation("softplus", name="softplus")(y))
    data = np.random.default_rng(0).normal(size=(8, 6, 8)).astype("float32")
    qat = keras_qat.quantize_model(model, calibration_data=data)
    path = tmp_path_factory.mktemp("normalized") / "model.tflite"
    keras_qat.export_litert(qat, path)
    return qat, path, data


def test_verify_compares_the_tensors_inside_layers(normalized):
    report = proven(*normalized)
    rows = report.layers["default"]
    operators = keras_qat.inspect_litert(normalized[1]).operators
    assert report.exact and len(rows) == len(operators) + 1  # the input
    assert all(row.is_inner == ("/" in name) for name, row in rows.items())
    assert rows["norm_normalized/reciprocal"].elements == 8 * 6
    line = next(text for text in str(report).splitlines() if "norm_normalized/reciprocal" in text)
    assert line.split()[-2] == "-"
    assert list(rows)[-3:] == ["softplus/wide", "softplus/index", "softplus"]


def test_verify_finds_a_changed_constant_inside_a_layer(normalized, tmp_path):
    model, path, data = normalized
    name = "norm_normalized/index"
    tensors = [tensor.name for tensor in keras_qat.inspect_litert(path).tensors]
    operand = next(each for each in tensors if each.endswith(f"{name}/operand"))
    other = tmp_path / "changed.tflite"
    other.write_bytes(changed(path.read_bytes(), operand.encode()))
    rows = proven(model, other, data).layers["default"]
    assert [each for each, row in rows.items() if row.mismatches and row.is_inner] == [name]


def test_verify_finds_a_file_from_before_further_training(tmp_path):
    model, path = quantized(small_network(), small_images()), tmp_path / "model.tflite"
    keras_qat.export_litert(model, path)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    model.train_on_batch(small_images(), labels())
    report = proven(model, path, small_images())
    assert not report.exact
    assert report.agreement["default"] < 16
    keras_qat.export_litert(model, path)
    assert proven(model, path, small_images()).exact


def test_verify_needs_the_kernels_of_the_target_as_proof(small_path):
    report = keras_qat.verify(
        quantized_small_network(), small_path, small_images(), kernels="reference", verbose=0
    )
    assert list(report.layers) == ["reference"] and not report.exact
    assert report.verdict.startswith("NOT PROVEN")


@pytest.mark.parametrize("kernels", ["fast", ("reference", "fast")])
def test_verify_refuses_unknown_kernels(kernels, small_path):
    model = quantized_small_network()
    with pytest.raises(LiteRTFormatError, match="'default', 'reference'.*kernels='fast'"):
        keras_qat.verify(model, small_path, small_images(), kernels=kernels)


def test_verify_refuses_a_file_of_another_model(path):
    with pytest.raises(InvalidDataError, match="not exported from this model.* To fix it: Export"):
        keras_qat.verify(quantized_small_network(), path, small_images())


def test_verify_refuses_a_file_that_lacks_a_layer(tmp_path):
    first, second = (
        keras.Sequential(
            [
                keras.Input((4, 4, 3), name="image"),
                layers.Conv2D(4, 1, name=name),
                layers.Flatten(name="flatten"),
                layers.Dense(2, name="head"),
            ]
        )
        for name in ("conv", "other")
    )
    keras_qat.export_litert(quantized(first, small_images()), tmp_path / "model.tflite")
    with pytest.raises(InvalidDataError, match=r"without \['other'\]"):
        proven(quantized(second, small_images()), tmp_path / "model.tflite", small_images())


@pytest.mark.parametrize("content", [None, b"", b"not a model at all"])
def test_verify_refuses_what_is_not_a_file(content, tmp_path):
    path = tmp_path / "model.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LiteRTFormatError):
        keras_qat.verify(quantized_small_network(), path, small_images())


def test_verify_refuses_wrong_models_and_data(small_path):
    with pytest.raises(NotQuantizedError, match="Received: a Sequential"):
        keras_qat.verify(linear(), small_path, small_images())
    with pytest.raises(MissingRangeError, match="lack min/max"):
        keras_qat.verify(keras_qat.quantize_model(small_network()), small_path, small_images())
    with pytest.raises(InvalidDataError, match="wrong shape"):
        keras_qat.verify(quantized_small_network(), small_path, images())


def test_verify_adds_up_batches(small_path):
    batches = [small_images(16, seed) for seed in range(3)]
    report = proven(quantized_small_network(), small_path, batches)
    assert report.samples == 48 and report.exact
    assert report.layers["default"]["conv"].elements == 48 * 2 * 2 * 4


@pytest.mark.parametrize("kinds", [("uint8", "uint8"), ("float32", "float32")])
def test_verify_of_files_with_other_types(kinds, tmp_path):
    model, path = quantized_small_network(), tmp_path / "model.tflite"
    keras_qat.export_litert(
        model, path, inference_input_type=kinds[0], inference_output_type=kinds[1]
    )
    report = proven(model, path, small_images())
    assert report.exact
    assert report.outputs == ("head",)
    assert {"head_int8", "head_softmax", "head"} <= report.layers["default"].keys()
