"""inspect_litert shows files that run in some runtime, with remarks on odd values."""

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_qat
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from tests.models import quantized, small_images, small_network


@pytest.fixture(scope="module")
def content():
    return to_bytes(lower_model(quantized(small_network(), small_images())))


def changed(content, change):
    """Returns the file with changed tables, written by the classes of the schema."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_inspect_litert_shows_files_of_vela():
    pytest.importorskip("ethosu.vela")
    from tests.vela import compiled_by_vela

    layers = [keras.Input(batch_shape=(1, 8, 8, 4)), keras.layers.Conv2D(4, 3)]
    data = np.random.default_rng(0).random((4, 8, 8, 4), "float32")
    model = lower_model(quantized(keras.Sequential(layers), data), batch_size=1)
    report = keras_qat.inspect_litert(compiled_by_vela(to_bytes(model)))
    assert [operator.name for operator in report.operators] == ["CUSTOM(ethos-u)"]
    (remark,) = report.remarks
    assert "'ethos-u' takes" in remark and "no operator computes" in remark
    assert remark in str(report).replace("\n", " ") and report.to_dict()["remarks"] == [remark]


def axis_of_bias(model):
    """Gives a bias the axis of its weights, as old converters did."""
    vectors = [
        tensor.quantization
        for tensor in model.subgraphs[0].tensors
        if tensor.shape is not None and len(tensor.shape) == 1 and tensor.quantization is not None
        if tensor.quantization.scale is not None and len(tensor.quantization.scale) > 1
    ]
    assert vectors
    for quantization in vectors:
        quantization.quantizedDimension = 3


def test_inspect_litert_shows_a_bias_with_the_axis_of_its_weights(content):
    report = keras_qat.inspect_litert(changed(content, axis_of_bias))
    (remark,) = report.remarks
    assert "scales at an axis that they do not have" in remark
    plain = keras_qat.inspect_litert(content)
    assert [each.name for each in report.operators] == [each.name for each in plain.operators]
    assert plain.remarks == ()


def no_operator(model):
    """Lets the first operator, not a custom one, take a tensor that no operator computes."""
    operators = model.subgraphs[0].operators
    operators[0].inputs = [operators[-1].outputs[0], *operators[0].inputs[1:]]


def wrong_axis(model):
    """Gives a tensor of several axes scales along an axis that it does not have."""
    tensors = [tensor for tensor in model.subgraphs[0].tensors if tensor.quantization is not None]
    for tensor in tensors:
        if tensor.quantization.scale is not None and len(tensor.quantization.scale) > 1:
            tensor.quantization.quantizedDimension = 7 if len(tensor.shape) > 1 else 0


@pytest.mark.parametrize("change", [no_operator, wrong_axis])
def test_inspect_litert_refuses_files_that_no_runtime_takes(change, content):
    with pytest.raises(keras_qat.errors.LiteRTFormatError, match="damaged"):
        keras_qat.inspect_litert(changed(content, change))
