"""Exported files, read by the schema's reader and run by LiteRT's interpreter."""

import itertools
import os
import signal
import stat
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.errors import ExportError, KernelLimitError, MissingRangeError, NotQuantizedError
from keras_qat.lowering import exporting
from keras_qat.quantizers import RangeParameters
from tests.models import (
    called,
    images,
    linear,
    network,
    quantized,
    quantized_network,
    quantized_small_network,
    small_images,
)
from tests.quick import some_quick

TYPES = ("int8", "uint8", "float32")


def exported(model, folder, **arguments):
    path = folder / "model.tflite"
    keras_qat.export_litert(model, path, **arguments)
    return path.read_bytes()


def test_export_computes_the_parameters_of_each_tensor_once(tmp_path, monkeypatch):
    computed, compute = [], RangeParameters._computed
    monkeypatch.setattr(
        RangeParameters, "_computed", lambda self: [computed.append(self), compute(self)][1]
    )
    model = quantized_small_network()
    computed.clear()
    exported(model, tmp_path)
    assert computed and len(computed) == len(set(map(id, computed)))


def interpreter(content):
    return Interpreter(model_content=content)


def signature(content):
    return interpreter(content).get_signature_runner("serving_default")


def grid(details):
    quantization = details["quantization_parameters"]
    return quantization["scales"][0], quantization["zero_points"][0]


def quantize(x, details):
    """Rounds half to even, as XNNPACK's QUANTIZE does."""
    if details["dtype"] == np.float32:
        return x
    (scale, zero_point), limits = grid(details), np.iinfo(details["dtype"])
    q = np.rint(np.float32(x) * (np.float32(1) / scale)) + zero_point
    return np.clip(q, limits.min, limits.max).astype(details["dtype"])


def dequantize(q, details):
    if details["dtype"] == np.float32:
        return q
    scale, zero_point = grid(details)
    return (q.astype("float32") - np.float32(zero_point)) * scale


def run(content, x, name="head"):
    runner = signature(content)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return dequantize(runner(image=quantize(x, inputs["image"]))[name], outputs[name])


def table(content):
    return schema.ModelT.InitFromPackedBuf(content)


def test_export_names_tensors_after_layers(tmp_path):
    subgraph = table(exported(quantized_network(), tmp_path)).subgraphs[0]
    names = [tensor.name.decode() for tensor in subgraph.tensors]
    results = [names[operator.outputs[0]] for operator in subgraph.operators]
    assert results == ["conv", "depthwise", "add", "pool", "mean", "head_int8", "head"]
    assert {"image", "conv/kernel", "conv/bias", "depthwise/kernel", "head/bias"} <= set(names)
    assert [names[i] for i in subgraph.inputs] == ["image"]
    assert [names[i] for i in subgraph.outputs] == ["head"]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("types", list(itertools.product(TYPES, TYPES)), ids="-".join)
def test_export_in_every_combination_of_types_equals_keras(types, tmp_path):
    model, x = quantized_network(), images(4)
    content = exported(
        model, tmp_path, inference_input_type=types[0], inference_output_type=types[1]
    )
    details = signature(content)
    assert details.get_input_details()["image"]["dtype"] == np.dtype(types[0])
    assert details.get_output_details()["head"]["dtype"] == np.dtype(types[1])
    assert (run(content, x) == np.asarray(model(x))).all()


def test_export_of_uint8_inputs_adds_128_to_int8(tmp_path):
    signed = signature(exported(quantized_network(), tmp_path)).get_input_details()["image"]
    content = exported(quantized_network(), tmp_path, inference_input_type="uint8")
    unsigned = signature(content).get_input_details()["image"]
    assert grid(unsigned) == (grid(signed)[0], grid(signed)[1] + 128)


def test_export_of_uint8_inputs_takes_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")
    model = quantized(network(), pixels)
    content = exported(model, tmp_path, inference_input_type="uint8")
    details = signature(content).get_input_details()["image"]
    assert grid(details) == (1, 0)
    output = signature(content)(image=pixels)["head"]
    expected = np.asarray(model(pixels.astype("float32")))
    assert (output.astype("float32") + 128 == expected * 256).all()


@pytest.mark.parametrize("batch", [1, 7])
def test_export_has_a_dynamic_batch_size(batch, tmp_path):
    model, x = quantized_small_network(), small_images(batch)
    output = run(exported(model, tmp_path), x)
    assert output.shape == (batch, 5) and (output == np.asarray(model(x))).all()


def test_export_keeps_a_fixed_batch_size(tmp_path):
    source = keras.Sequential([keras.Input(batch_shape=(2, 4)), layers.Dense(3, name="d")])
    model = quantized(source, np.eye(4, dtype="float32"))
    details = interpreter(exported(model, tmp_path)).get_input_details()[0]
    assert details["shape_signature"].tolist() == [2, 4]


def test_export_has_only_integer_tensors(tmp_path):
    subgraph = table(exported(quantized_network(), tmp_path)).subgraphs[0]
    kinds = {tensor.type for tensor in subgraph.tensors}
    assert kinds == {schema.TensorType.INT8, schema.TensorType.INT32}


def test_export_aligns_constants_to_16_bytes(tmp_path):
    content = exported(quantized_network(), tmp_path)
    root, base = schema.Model.GetRootAs(content), np.frombuffer(content, np.uint8).ctypes.data
    buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
    offsets = [b.DataAsNumpy().ctypes.data - base for b in buffers if not b.DataIsNone()]
    assert len(offsets) == 8 and all(offset % 16 == 0 for offset in offsets)


def test_export_has_the_minimum_runtime_version(tmp_path):
    content = table(exported(quantized_network(), tmp_path))
    metadata = {entry.name: content.buffers[entry.buffer].data for entry in content.metadata}
    assert bytes(metadata[b"min_runtime_version"]).rstrip(b"\0").decode()[0].isdigit()


def test_export_is_deterministic(tmp_path):
    first = exported(quantized_network(), tmp_path)
    assert exported(quantized_network(), tmp_path) == first


def test_export_of_two_outputs_that_are_one_tensor(tmp_path):
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="d")(x)
    outputs = [y, layers.Dropout(0.5, name="drop")(y), y]
    model = quantized(keras.Model(x, outputs), np.eye(4, dtype="float32"))
    for kind in TYPES:
        content = exported(model, tmp_path, inference_output_type=kind)
        details = signature(content).get_output_details()
        assert sorted(details) == ["d", "d_1", "drop"]
        assert len({detail["index"] for detail in details.values()}) == 1


def test_export_stores_the_weights_of_a_shared_layer_once(tmp_path):
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="d")
    model = quantized(keras.Model(x, dense(dense(x))), np.eye(4, dtype="float32"))
    subgraph = table(exported(model, tmp_path)).subgraphs[0]
    assert len(subgraph.operators) == 2
    first, second = (operator.inputs[1:].tolist() for operator in subgraph.operators)
    assert first == second


def test_export_of_a_shared_layer_on_different_sizes(tmp_path):
    a, b = keras.Input((4, 2), name="a"), keras.Input((3, 2), name="b")
    flat, norm = layers.Flatten(name="flat"), layers.BatchNormalization(name="norm")
    source = keras.Model([a, b], [flat(norm(a)), flat(norm(b))])
    data = np.ones((2, 4, 2), "float32"), np.ones((2, 3, 2), "float32")
    details = signature(exported(quantized(source, data), tmp_path)).get_output_details()
    assert {tuple(detail["shape_signature"]) for detail in details.values()} == {(-1, 8), (-1, 6)}


def test_export_of_an_input_that_is_an_output(tmp_path):
    x = keras.Input((4,), name="x")
    source = keras.Model(x, [x, layers.Dense(2, name="d")(x)])
    data = np.array([[0, 1, 2, 255]], "float32")
    runner = signature(exported(quantized(source, data), tmp_path))
    integers = np.array([[-128, 0, 5, 127]], "int8")
    outputs = runner(x=integers)
    assert any(np.array_equal(value, integers) for value in outputs.values())


@pytest.mark.parametrize("argument", ["inference_input_type", "inference_output_type"])
def test_export_refuses_an_unknown_type(argument, tmp_path):
    with pytest.raises(ExportError, match="Expected: one of .*uint8.* Received: 'int12'"):
        exported(quantized_network(), tmp_path, **{argument: "int12"})
    assert os.listdir(tmp_path) == []


def test_export_without_ranges_names_tensors_and_layers(tmp_path):
    model = keras_qat.quantize_model(network())
    message = (
        "6 tensor.* lack min/max data, .*: 'image_quantize', 'conv', 'depthwise', 'add', 'mean', "
        "'head'. .* Layer: 'image_quantize'. To fix it: .*calibrat"
    )
    with pytest.raises(MissingRangeError, match=message):
        exported(model, tmp_path)
    assert os.listdir(tmp_path) == []


def test_export_refuses_one_missing_range(tmp_path):
    model = quantized(network(), images())
    model.get_layer("add").observer.reset()
    with pytest.raises(MissingRangeError, match="1 tensor.*: 'add'. .* Layer: 'add'"):
        exported(model, tmp_path)


def test_export_refuses_a_float_model(tmp_path):
    with pytest.raises(NotQuantizedError, match="Received: a Sequential.* To fix it: "):
        exported(linear(), tmp_path)


UNWRITABLE = {
    "missing folder": lambda folder: folder / "missing" / "model.tflite",
    "folder in its place": lambda folder: folder,
    "file as folder": lambda folder: folder / "file" / "model.tflite",
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_export_to_an_unwritable_path_leaves_no_file(name, tmp_path):
    (tmp_path / "file").write_text("old")
    path = UNWRITABLE[name](tmp_path)
    with pytest.raises(ExportError, match="To fix it: ") as error:
        keras_qat.export_litert(quantized_network(), path)
    assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == ["file"]
    assert [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")] == []


def test_export_replaces_an_existing_file(tmp_path):
    (tmp_path / "model.tflite").write_text("old")
    assert exported(quantized_network(), tmp_path)[4:8] == b"TFL3"
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert stat.S_ISREG((tmp_path / "model.tflite").stat().st_mode)


@pytest.mark.parametrize(
    ("weight", "scheme"),  # quick: scales below, at and above the limit
    some_quick(itertools.product([1e-12, 1e-9, 1e-7, 1e-6, 1e-5], ["int8", "uint8"]), 0, 5, 6),
)
def test_export_of_logits_near_zero_does_not_abort_litert(weight, scheme, tmp_path):
    """LiteRT's SOFTMAX takes no scale of 2^-26 or less. The logits are up to 4 * weight."""
    head = layers.Dense(3, "softmax", kernel_initializer=keras.initializers.Constant(weight))
    model = keras_qat.quantize_model(keras.Sequential([keras.Input((4,)), head]), scheme)
    x = np.random.default_rng(0).random((64, 4), "float32")
    keras_qat.calibrate(model, x, verbose=0)
    keras_qat.export_litert(model, tmp_path / "model.tflite")
    report = keras_qat.verify(model, tmp_path / "model.tflite", x, verbose=0)
    assert report.exact, str(report)
    np.testing.assert_array_equal(called(model, x), np.float32(85 / 256))


def test_export_refuses_input_stats_that_would_abort_litert(tmp_path):
    x = keras.Input((4,), name="x")
    model = quantized_with_stats(keras.Model(x, layers.Softmax(name="scores")(x)), (0, 2.0**26))
    with pytest.raises(KernelLimitError, match="SOFTMAX aborts.*'scores'.*quantized_input_stats"):
        keras_qat.export_litert(model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def quantized_with_stats(model, stats):
    model = keras_qat.quantize_model(model, quantized_input_stats={"x": stats})
    keras_qat.calibrate(model, np.full((2, 4), 2e-6, "float32"), verbose=0)
    return model


@pytest.mark.parametrize("layer", [keras.layers.Add, keras.layers.Subtract])
def test_export_refuses_a_sum_of_too_small_a_range(layer, tmp_path, monkeypatch):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], layer(name="sum")([a, b]))
    x = np.random.default_rng(0).uniform(-1e6, 1e6, (32, 4)).astype("float32")
    nearly = np.nextafter(x, np.float32(2e6))
    data = [x, -nearly if layer is keras.layers.Add else nearly]
    qat = keras_qat.quantize_model(model, calibration_data=data, target="reference")
    with pytest.raises(KernelLimitError, match="'sum'.*above 2.-19 of the inputs.*scales of"):
        keras_qat.export_litert(qat, tmp_path / "sum.tflite")
    assert not (tmp_path / "sum.tflite").exists()
    monkeypatch.setattr(exporting, "check_kernel_limits", lambda lowered: None)
    keras_qat.export_litert(qat, tmp_path / "sum.tflite")
    if layer is keras.layers.Add:
        assert stops_litert(tmp_path / "sum.tflite")


def stops_litert(path):
    """Returns whether the reference kernels abort the process, which is not an exception."""
    program = (
        "from ai_edge_litert.interpreter import Interpreter, OpResolverType as Type\n"
        "options = dict(experimental_op_resolver_type=Type.BUILTIN_REF)\n"
        f"Interpreter({str(path)!r}, **options).allocate_tensors()"
    )
    return subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGABRT
