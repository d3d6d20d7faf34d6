"""The schemes "int4" and "int2": weights of few bits, equal to LiteRT's kernels."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.compiler import compile
from keras_qat.errors import InvalidSchemeError
from keras_qat.graph import read_model
from keras_qat.layers import QConv2D
from keras_qat.layers.core.rules import packs_weights
from keras_qat.passes.config import Config
from keras_qat.passes.overrides import as_mapping
from keras_qat.scheme import get_scheme
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, loosen
from tests.layers.litert_files import exported, versions_of
from tests.layers.test_contract import CASES
from tests.models import called, images


def quantized(model, data, scheme="int4", overrides=None, **options):
    result = keras_qat.quantize_model(model, scheme, overrides=overrides, **options)
    keras_qat.calibrate(result, data, verbose=0)
    return result


def verified(model, data, tmp_path, **options):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path, **options)
    return keras_qat.verify(model, path, data, verbose=0)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", first_of_each(CASES))
def test_int4_weights_of_every_rule_equal_litert(case, tmp_path):
    prepared = Prepared(case)
    model = quantized(prepared.keras_model, tuple(prepared.arrays))
    loosen(model, np.random.default_rng(1))  # integers saturate at both limits
    report = verified(model, tuple(prepared.arrays), tmp_path)
    assert report.exact, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int2", "int4"])
@pytest.mark.parametrize("storage", ["packed", "int8"])
@pytest.mark.parametrize("case", first_of_each(CASES))
def test_narrow_weights_of_every_rule_equal_litert(case, scheme, storage, tmp_path):
    prepared = Prepared(case)
    data = tuple(prepared.arrays)
    model = quantized(prepared.keras_model, data, scheme, storage=storage)
    loosen(model, np.random.default_rng(1))
    report = verified(model, data, tmp_path)
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


KERNELS = ("conv", "depthwise", "transposed", "head")


def kinds_of(model):
    stored = weights_of(exported(model)).items()
    return {name.removesuffix("/kernel"): kind for name, (kind, _, _) in stored}


def values_of(model):
    """Returns the number of different weights of each kernel in an int8 tensor."""
    stored = weights_of(exported(model)).items()
    return {
        name.removesuffix("/kernel"): len(np.unique(np.frombuffer(bytes(data), "int8")))
        for name, (kind, _, data) in stored
        if kind == "INT8"
    }


def test_int2_weights_are_packed_in_dense_layers(tmp_path):
    model = quantized(network(), images(), "int2")
    expected = {"conv": "INT4", "depthwise": "INT4", "transposed": "INT8", "head": "INT2"}
    assert kinds_of(model) == expected
    kind, shape, data = weights_of(exported(model))["head/kernel"]
    assert len(data) == np.prod(shape) / 4
    assert dict(versions_of(exported(model)))["FULLY_CONNECTED"] == 14
    assert verified(model, images(32, seed=1), tmp_path).exact


def test_narrow_weights_in_int8_tensors_have_few_values(tmp_path):
    model = quantized(network(), images(), "int2", storage="int8")
    assert set(kinds_of(model).values()) == {"INT8"}
    assert values_of(model)["head"] == 3
    assert all(count <= 15 for count in values_of(model).values())
    assert verified(model, images(32, seed=1), tmp_path).exact
    model.save(tmp_path / "model.keras")
    assert exported(keras.models.load_model(tmp_path / "model.keras")) == exported(model)


PACKED = {
    "litert": {"conv": "INT4", "depthwise": "INT4", "transposed": "INT8", "head": "INT4"},
    "reference": {"conv": "INT4", "depthwise": "INT8", "transposed": "INT8", "head": "INT4"},
    "tflite-micro": {"conv": "INT4", "depthwise": "INT4", "transposed": "INT8", "head": "INT8"},
    "ethos-u": dict.fromkeys(KERNELS, "INT8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", PACKED)
def test_narrow_weights_are_packed_where_the_target_takes_them(target, tmp_path):
    data = images()[:1]
    model = quantized(network(), data, target=target)
    assert verified(model, data, tmp_path, batch_size=1).exact
    stored = weights_of((tmp_path / "model.tflite").read_bytes())
    assert {name.removesuffix("/kernel"): kind for name, (kind, _, _) in stored.items()} == (
        PACKED[target]
    )


@pytest.mark.parametrize("target", ["edgetpu", "ethos-u", "litert", "reference", "tflite-micro"])
def test_packs_weights_where_the_target_takes_the_operator(target):
    codes = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
    names = "conv", "depthwise", "head"
    packed = PACKED.get(target, dict.fromkeys(KERNELS, "INT8"))
    for code, name in zip(codes, names, strict=True):
        is_packed = packs_weights(code, target, get_scheme("int4"))
        assert is_packed == (packed[name] == "INT4"), (code, target)


def test_narrow_weights_are_kept_for_another_target():
    model = quantized(network(), images(), target="litert")
    other = keras_qat.quantize_model(model, target="ethos-u")
    assert set(kinds_of(model).values()) == {"INT4", "INT8"}
    assert {each.packs_weights for each in other.layers if hasattr(each, "kernel")} == {False}
    for name in KERNELS:
        pair = model.get_layer(name), other.get_layer(name)
        integers = [each.integer_weights(1.0, 1.0).kernel for each in pair]
        assert (np.asarray(integers[0]) == np.asarray(integers[1])).all()


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
    ours = np.round(called(model, x) / np.float32(scale)) + zero_point
    assert (ours == interpreter.get_tensor(target["index"])).all()


def test_int4_weights_of_single_layers(tmp_path):
    model = quantized(network(), images(), "int8", {"head": "int4"})
    assert kinds_of(model) == {**dict.fromkeys(KERNELS, "INT8"), "head": "INT4"}
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


def test_scheme_name_of_int4_in_earlier_releases_loads():
    assert get_scheme("int4_weights") == get_scheme("int4")
    config = QConv2D(4, 3, scheme="int4", name="conv").get_config()
    layer = QConv2D.from_config({**config, "scheme": "int4_weights"})
    assert layer.get_config() == config and "storage" not in config


def test_storage_is_part_of_the_configuration_of_a_layer():
    layer = QConv2D(4, 3, scheme="int4", storage="int8", name="conv")
    assert QConv2D.from_config(layer.get_config()).scheme == layer.scheme
    assert layer.get_config()["storage"] == "int8"
    assert QConv2D(4, 3, scheme="int8", storage="int8").scheme == get_scheme("int8")


def test_storage_must_have_a_known_name():
    with pytest.raises(InvalidSchemeError, match="storage='int3'"):
        keras_qat.quantize_model(network(), "int4", storage="int3")


def schemes_of(model, scheme, overrides):
    """Returns the scheme of each layer with a kernel. Nothing is built."""
    graph = compile(model, Config(get_scheme(scheme), overrides=overrides)).layers
    assert graph is not None
    heads = (node.head for node in graph.nodes.values())
    return {each.name: each.scheme.name for each in heads if hasattr(each, "kernel_operator")}


def test_ends_int8_of_a_network_with_branches():
    x = keras.Input((8, 8, 3))
    stems = [layers.Conv2D(2, 1, name=name)(x) for name in ("stem_a", "stem_b")]
    y = layers.Conv2D(4, 3, name="middle")(layers.PReLU()(layers.Add()(stems)))
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.DepthwiseConv2D(3, name="inner")])
    y = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(inner(y)))
    heads = [layers.Dense(2, name="box")(y), layers.Softmax()(layers.Dense(3, name="class")(y))]
    model = keras.Model(x, heads)
    schemes = schemes_of(model, "int4", "ends_int8")
    wide = dict.fromkeys(("stem_a", "stem_b", "box", "class"), "int8")
    assert schemes == {**wide, "middle": "int4", "inner": "int4"}


def test_ends_int8_of_a_model_of_one_layer_has_no_narrow_weights():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2, name="dense")(x))
    assert schemes_of(model, "int2", "ends_int8") == {"dense": "int8"}


def test_ends_int8_by_name_are_those_of_the_graph():
    graph = read_model(network())
    assert as_mapping("ends_int8", graph) == dict.fromkeys(("conv", "head"), get_scheme("int8"))
    assert as_mapping({"head": None}, graph) == {"head": None}
