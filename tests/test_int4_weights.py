"""The scheme "int4_weights": packed weights of 4 bits, equal to LiteRT's kernels."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from tests.layers.contract import Prepared, exported, first_of_each, loosen, versions_of
from tests.layers.test_contract import CASES
from tests.models import images


def quantized(model, data, scheme="int4_weights", overrides=None):
    result = keras_qat.quantize_model(model, scheme, overrides=overrides)
    keras_qat.calibrate(result, data, verbose=0)
    return result


def verified(model, data, tmp_path):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path)
    return keras_qat.verify(model, path, data, kernels="default", verbose=0)


@pytest.mark.parametrize("case", first_of_each(CASES))
def test_int4_weights_of_every_rule_equal_litert(case, tmp_path):
    prepared = Prepared(case)
    model = quantized(prepared.keras_model, tuple(prepared.arrays))
    loosen(model, np.random.default_rng(1))  # integers saturate at both limits
    report = verified(model, tuple(prepared.arrays), tmp_path)
    assert report.exact, str(report)


def network():
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(5, 3, name="conv")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="conv_norm")(y))
    y = layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = layers.Conv2DTranspose(4, 2, name="transposed")(y)
    y = layers.Flatten(name="flat")(y + np.linspace(-1, 1, 4, dtype="float32"))
    return keras.Model(x, layers.Dense(3, name="head")(y))


def weights_of(content):
    """Returns the type, the shape and the bytes of each kernel of a file, by its name."""
    model = schema.ModelT.InitFromPackedBuf(content)
    types = {number: name for name, number in vars(schema.TensorType).items()}
    return {
        tensor.name.decode(): (types[tensor.type], tensor.shape, model.buffers[tensor.buffer].data)
        for tensor in model.subgraphs[0].tensors
        if tensor.name.endswith(b"/kernel")
    }


def test_int4_weights_are_packed_where_litert_has_kernels():
    model = quantized(network(), images())
    stored = weights_of(exported(model))
    assert {name: kind for name, (kind, _, _) in stored.items()} == {
        "conv/kernel": "INT4",
        "depthwise/kernel": "INT4",
        "transposed/kernel": "INT8",
        "head/kernel": "INT4",
    }
    for name, (kind, shape, data) in stored.items():
        assert len(data) == (np.prod(shape) + 1) // 2 if kind == "INT4" else np.prod(shape), name
    versions = dict(versions_of(exported(model)))
    assert versions["CONV_2D"] == versions["DEPTHWISE_CONV_2D"] == 7
    assert versions["FULLY_CONNECTED"] >= 10


def test_int4_weights_of_a_network_equal_litert(tmp_path):
    model = quantized(network(), images())
    report = verified(model, images(32, seed=1), tmp_path)
    assert report.exact, str(report)
    assert not report.not_compared


def test_int4_weights_have_the_first_one_in_the_lower_bits():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1, use_bias=False, name="dense")(x))
    model.get_layer("dense").kernel.assign([[0.7], [-0.1], [0.3]])
    model = quantized(model, np.eye(3, dtype="float32"))
    kind, _, data = weights_of(exported(model))["dense/kernel"]
    assert (kind, bytes(data)) == ("INT4", b"\xf7\x03")  # 7, -1 and 3


def test_int4_weights_of_a_dead_channel_do_not_overflow(tmp_path):
    """XNNPACK's kernel holds 16 times the sum, which was 2^33 for this channel."""
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="dense")(inputs))
    kernel = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    model.get_layer("dense").set_weights([kernel * [1e-12, 1], np.array([1, 0], "float32")])
    report = verified(quantized(model, x), x, tmp_path)
    assert report.exact, str(report)


def test_int4_weights_predictions_equal_the_interpreter():
    x = images(4)
    model = quantized(network(), x)
    interpreter = Interpreter(model_content=exported(model, inference_output_type="int8"))
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], x.shape)
    interpreter.allocate_tensors()
    scale, zero_point = source["quantization"]
    integers = np.clip(np.round(x / np.float32(scale)) + zero_point, -128, 127).astype("int8")
    interpreter.set_tensor(source["index"], integers)
    interpreter.invoke()
    scale, zero_point = target["quantization"]
    ours = np.round(model.predict(x, verbose=0) / np.float32(scale)) + zero_point
    assert (ours == interpreter.get_tensor(target["index"])).all()


def test_int4_weights_of_single_layers(tmp_path):
    model = quantized(network(), images(), "int8", {"head": "int4_weights"})
    kinds = {name: kind for name, (kind, _, _) in weights_of(exported(model)).items()}
    assert [name for name, kind in kinds.items() if kind == "INT4"] == ["head/kernel"]
    assert verified(model, images(32, seed=1), tmp_path).exact


def test_int4_weights_are_saved_with_the_layer(tmp_path):
    model = quantized(network(), images())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert exported(loaded) == exported(model)


def test_int4_weights_have_15_values_at_training():
    x = keras.Input((64,))
    model = keras.Model(x, layers.Dense(1, use_bias=False, name="dense")(x))
    values = np.linspace(-0.7, 0.7, 64, dtype="float32")[:, None]
    model.get_layer("dense").kernel.assign(values)
    model = quantized(model, np.eye(64, dtype="float32"))
    y = keras.ops.convert_to_numpy(model(np.eye(64, dtype="float32"), training=True))
    assert len(np.unique(y)) == 15
    np.testing.assert_allclose(y, values, atol=0.052)
