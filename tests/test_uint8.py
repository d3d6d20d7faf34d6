"""The scheme "uint8": the fully uint8 model of TensorFlow 1, equal to LiteRT's uint8 kernels."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_qat
from keras_qat.errors import InvalidOverrideError, UnsupportedLayerError
from keras_qat.litert import Runner
from tests import seeds
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, loosen
from tests.layers.litert_files import exported, versions_of
from tests.layers.test_contract import CASES
from tests.models import called, images, labels, linear, network

# Cases without a uint8 reference kernel. All other cases are supported.
REFUSED = {
    "matmul": "BATCH_MATMUL",
    "matmul_broadcasting": "BATCH_MATMUL",
    "matmul_long": "BATCH_MATMUL",
}


def named(name):
    return next(case for case in CASES if case.name == name)


def quantized(model, data):
    result = keras_qat.quantize_model(model, "uint8")
    keras_qat.calibrate(result, data, verbose=0)
    return result


def verified(model, data, tmp_path):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path)
    return keras_qat.verify(model, path, data, kernels="default", verbose=0)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "case", first_of_each([case for case in CASES if case.name not in REFUSED])
)
def test_uint8_of_every_rule_equals_litert(case, tmp_path):
    prepared = Prepared(case)
    model = quantized(prepared.keras_model, tuple(prepared.arrays))
    loosen(model, np.random.default_rng(1))  # integers saturate at both limits
    report = verified(model, tuple(prepared.arrays), tmp_path)
    assert report.exact, str(report)
    file = schema.ModelT.InitFromPackedBuf((tmp_path / "model.tflite").read_bytes())
    kinds = schema.TensorType
    inner = {kinds.INT8 for each in model.layers if getattr(each, "int8_operators", ())}
    assert {t.type for t in file.subgraphs[0].tensors} <= {kinds.UINT8, kinds.INT32, *inner}


@pytest.mark.parametrize(("name", "operator"), REFUSED.items())
def test_uint8_refuses_operators_without_a_kernel(name, operator):
    with pytest.raises(UnsupportedLayerError, match=f"{operator}.*uint8.*int8") as error:
        keras_qat.quantize_model(Prepared(named(name)).keras_model, "uint8")
    assert error.value.layer and operator in str(error.value)


def test_uint8_check_names_operators_without_a_kernel():
    model = Prepared(named("matmul")).keras_model
    assert not keras_qat.check(model).findings
    findings = keras_qat.check(model, "uint8").findings
    assert findings and all("BATCH_MATMUL" in finding.message for finding in findings)


def test_uint8_network_trains_saves_and_equals_litert(tmp_path):
    model = quantized(network(), images())
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_layer("conv").kernel.numpy()
    model.fit(images(), labels(), epochs=2, verbose=0)
    assert np.any(model.get_layer("conv").kernel.numpy() != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(called(loaded, images()), called(model, images()))
    assert exported(loaded) == exported(model)
    assert verified(loaded, images(64, seed=1), tmp_path).exact


def test_uint8_training_rounds_the_folded_kernel():
    """The tensor has one scale, so channels of small gammas have few steps."""
    model = quantized(network(), images())
    for layer in model.layers:
        if getattr(layer, "batch_normalization", None) is not None:
            layer.batch_normalization.trainable = (
                False  # use the moving statistics, not those of the batch
            )
    x = images(32)
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    inferred = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.abs(trained - inferred).max() < 0.04  # steps of 1/256, after a softmax


def test_uint8_weights_are_asymmetric_per_tensor_in_the_narrow_range():
    model = quantized(network(), images())
    kernel = keras_qat.integer_weights(model)["conv/kernel"]
    assert kernel.values.dtype == np.uint8 and kernel.scale.size == kernel.zero_point.size == 1
    assert kernel.values.min() == 1 and kernel.values.max() == 255
    assert 1 <= kernel.zero_point[0] <= 255
    bias = keras_qat.integer_weights(model)["conv/bias"]
    assert bias.values.dtype == np.int32 and bias.scale.size == 1


def test_uint8_dense_by_hand():
    """Inputs have steps of 1/255 * 255 = 1, weights of 1 have steps of 1/254, outputs of 4."""
    qat = keras_qat.quantize_model(linear(4, 1), "uint8")
    ranges = {"x_quantize": (0.0, 255.0), "dense": (0.0, 1020.0)}
    for layer in qat.layers:
        if layer.name in ranges:
            layer.observer.widen(*ranges[layer.name])
    runner = Runner(exported(qat))
    assert [str(d.dtype) for d in (*runner.inputs, *runner.outputs)] == ["uint8", "uint8"]
    pixels = np.array([[0, 1, 2, 4], [255, 255, 255, 255], [1, 2, 3, 5]], "uint8")
    # 7 / 4 and 11 / 4 steps.
    assert runner.run([pixels])[0].tolist() == [[2], [255], [3]]
    expected = [[8.0], [1020.0], [12.0]]
    np.testing.assert_array_equal(called(qat, pixels.astype("float32")), expected)


@pytest.mark.parametrize("kernel_size", [None, 1], ids=["FULLY_CONNECTED", "CONV_2D"])
def test_uint8_rounds_accumulators_per_operator(kernel_size, tmp_path):
    """With the rounding of the other operator, about a dozen of these outputs would differ."""
    layers = keras.layers
    layer = layers.Dense(64) if kernel_size is None else layers.Conv2D(64, kernel_size)
    model = keras.Sequential([keras.Input((8, 8, 40)), layer])
    x = np.random.default_rng(0).normal(0.2, 1, (16, 8, 8, 40)).astype("float32")
    report = verified(quantized(model, x), x, tmp_path)
    assert report.exact and report.layers["default"][layer.name].elements == 16 * 8 * 8 * 64


def test_uint8_inputs_and_outputs_of_other_types():
    model = quantized(network(), images())
    content = exported(model, inference_input_type="int8", inference_output_type="float32")
    runner = Runner(content)
    assert [str(d.dtype) for d in (*runner.inputs, *runner.outputs)] == ["int8", "float32"]
    shifted = Runner(exported(model))
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8")
    y = runner.run([(x.astype("int16") - 128).astype("int8")])[0]
    np.testing.assert_array_equal(y, shifted.run([x])[0].astype("float32") / 256)
    codes = [name for name, _ in versions_of(content)]
    assert codes[0] == "QUANTIZE" and codes[-1] == "DEQUANTIZE"


def test_uint8_refuses_overrides_of_another_integer_type():
    with pytest.raises(InvalidOverrideError, match="signed or unsigned.*'uint8'.*'int8'"):
        keras_qat.quantize_model(network(), overrides={"head": "uint8"})


def test_uint8_with_a_float_layer(tmp_path):
    model = keras_qat.quantize_model(network(), "uint8", overrides={"head": None})
    keras_qat.calibrate(model, images(), verbose=0)
    assert verified(model, images(8, seed=3), tmp_path).exact


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2"])
def test_uint8_deep_network_equals_litert(name, tmp_path):
    application = getattr(keras.applications, name)
    seeds.seed(0)
    model = application((32, 32, 3), alpha=0.35 if name == "MobileNetV2" else 0.25, weights=None)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (16, 32, 32, 3)).astype("float32")
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.3, norm.beta.shape))
        norm.momentum = 0.0
    model(x, training=True)  # makes the moving statistics equal to those of the batch
    assert verified(quantized(model, x), x, tmp_path).exact
