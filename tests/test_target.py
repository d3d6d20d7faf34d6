"""The target of a model: its kernels, its operators, and what is kept of it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidModelError, InvalidTargetError, TargetError
from keras_qat.litert import Runner
from keras_qat.lowering import lower_model
from tests import seeds
from tests.layers.litert_files import half_away
from tests.micro import needs_micro, run_on_micro
from tests.models import called
from tests.quick import some_quick

SCHEMES = ("int8", "int8_per_tensor", "int4", "uint8")


def network():
    """Makes a small network in which nearly every operator rounds differently in some kernels."""
    x = keras.Input((16, 16, 3), name="image")
    y = layers.Conv2D(12, 3, padding="same", activation="swish", name="conv")(x)
    z = layers.DepthwiseConv2D(3, padding="same", activation="leaky_relu", name="depthwise")(y)
    y = layers.Add(name="add")([y, z])
    y = layers.UpSampling2D(2, interpolation="bilinear", name="up")(y)
    y = layers.LayerNormalization(name="norm")(layers.Conv2D(6, 3, strides=2, name="narrow")(y))
    y = layers.GlobalAveragePooling2D(name="mean")(layers.Activation("gelu", name="gelu")(y))
    return keras.Model(x, layers.Dense(5, activation="softmax", name="head")(y))


@pytest.fixture(scope="module")
def model():
    seeds.seed(0)
    return network()


def data(count=24):
    return np.random.default_rng(0).normal(size=(count, 16, 16, 3)).astype("float32")


def verified(qat, path, **options):
    keras_qat.export_litert(qat, path, **options)
    return keras_qat.verify(qat, path, data(), verbose=0)


@pytest.mark.parametrize("scheme", some_quick(SCHEMES, 0, 3))
@pytest.mark.parametrize("inputs", ["float32", pytest.param(None, marks=pytest.mark.slow)])
def test_inference_equals_the_default_kernels(model, scheme, inputs, tmp_path):
    qat = keras_qat.quantize_model(model, scheme, calibration_data=data(), target="litert")
    report = verified(qat, tmp_path / "model.tflite", inference_input_type=inputs)
    assert report.kernels == "default"
    assert report.exact and report.mismatches("default") == 0, str(report)
    assert report.mismatches("reference") > 0 and "EXACT" in report.verdict


@pytest.mark.parametrize("target", ["litert", "reference"])
def test_integer_inputs_are_rounded_as_the_target_rounds(target, tmp_path):
    x = keras.Input((4,), name="x")
    qat = keras_qat.quantize_model(keras.Model(x, layers.ReLU(name="y")(x)), target=target)
    for name in ("x_quantize", "y"):
        qat.get_layer(name).observer.widen(-64.0, 63.5)
    ties = np.array([[0.25, 0.75, 1.25, -0.25]], "float32")  # half a step, and so on
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", ties, verbose=0)
    assert report.exact, str(report)
    rounded = {"litert": [0.0, 1.0, 1.0, 0.0], "reference": [0.5, 1.0, 1.5, 0.0]}[target]
    assert called(qat, ties).tolist() == [rounded]


def test_inference_equals_the_reference_kernels(model, tmp_path):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="reference")
    report = verified(qat, tmp_path / "model.tflite")
    assert report.kernels == "reference" and report.exact and report.mismatches("default") > 0


# Quick tests compile each rule and a smaller network with XLA, too.
@pytest.mark.parametrize("run", some_quick(["graph", "xla"], 0))
def test_compilers_change_no_bit_of_the_default_kernels(model, run):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="litert")
    expected = np.asarray(qat(data()))
    if run == "graph":
        assert (called(qat, data()) == expected).all()
    if run == "xla":
        qat.compile(jit_compile=True)
        assert (called(qat, data()) == expected).all()


def test_kernels_of_arm64_are_not_proven_without_the_emulator(model, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_QAT_ARM64", str(tmp_path / "missing"))
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="litert-arm64")
    report = verified(qat, tmp_path / "model.tflite")
    assert report.kernels == "arm64" and not report.exact
    assert report.verdict.startswith("NOT PROVEN (The kernels 'arm64' need an emulated ARM64")
    # All other operators of the network round as on this machine.
    rows = report.layers["default"]
    assert {name for name, row in rows.items() if row.mismatches} <= {"head"}


def test_uint8_products_are_refused_for_arm64(model):
    found = keras_qat.check(model, "uint8", target="litert-arm64").errors
    assert {each.code for each in found} == {"target-limit"}
    assert keras_qat.check(model, target="litert-arm64").ok


def test_target_is_saved_with_the_model(model, tmp_path):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="litert")
    qat.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.target == keras.models.clone_model(qat).target == "litert"
    assert (called(loaded, data()) == called(qat, data())).all()


def test_model_of_an_older_version_equals_the_reference_kernels(model):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="reference")
    config = qat.get_config()
    assert not any("target" in each["config"] for each in config["layers"])
    assert type(qat).from_config(config).target == "reference"


def test_set_target_changes_the_rounding_only(model, tmp_path):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="litert")
    keras_qat.export_litert(qat, tmp_path / "one.tflite")
    one = called(qat, data())
    qat.set_target("reference")
    keras_qat.export_litert(qat, tmp_path / "other.tflite")
    assert (tmp_path / "one.tflite").read_bytes() == (tmp_path / "other.tflite").read_bytes()
    other = called(qat, data())
    assert 0 < np.abs(one - other).max() <= 3 / 256


def test_target_without_an_operator_gets_another_form(model):
    operators = {
        target: {each.code for each in lower_model(quantized(model, target)).operators}
        for target in ("litert", "tflite-micro")
    }
    assert "GELU" in operators["litert"] and "GELU" not in operators["tflite-micro"]
    assert "GATHER" in operators["tflite-micro"]


def quantized(model, target):
    return keras_qat.quantize_model(model, target=target, default_ranges_stats=(-4, 4))


def test_trained_model_is_retargeted(model, tmp_path):
    qat = keras_qat.quantize_model(model, calibration_data=data(), target="litert")
    qat.compile("sgd", "mse")
    qat.fit(data(), np.zeros((24, 5), "float32"), verbose=0)
    keras_qat.export_litert(qat, tmp_path / "before.tflite")
    micro = keras_qat.quantize_model(qat, target="tflite-micro")
    codes = {each.code for each in lower_model(micro).operators}
    assert micro.target == "tflite-micro" and "GELU" not in codes and "GATHER" in codes
    assert [variable.shape for variable in micro.variables] == [
        variable.shape for variable in qat.variables
    ]
    back = keras_qat.quantize_model(micro, target="litert")
    keras_qat.export_litert(back, tmp_path / "after.tflite")
    assert (tmp_path / "before.tflite").read_bytes() == (tmp_path / "after.tflite").read_bytes()
    assert (called(back, data()) == called(qat, data())).all()
    assert qat.target == "litert" and back.rewrite_log == qat.rewrite_log


def test_only_the_target_of_a_quantized_model_changes(model):
    qat = quantized(model, "litert")
    with pytest.raises(InvalidModelError, match="quantized already"):
        keras_qat.quantize_model(qat, "uint8", target="litert")
    with pytest.raises(InvalidModelError, match="quantized already"):
        keras_qat.quantize_model(qat)


def test_export_takes_the_target_of_the_model(model, tmp_path):
    qat = quantized(model, "litert")
    qat.set_target("tflite-micro")
    with pytest.raises(TargetError, match="GELU"):
        keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()


def test_quantize_model_refuses_an_unknown_target(model):
    for call in (keras_qat.quantize_model, keras_qat.clone_model, keras_qat.check):
        with pytest.raises(InvalidTargetError, match="'litert', 'litert-arm64', 'reference'"):
            call(model, target="phone")


def test_sum_that_the_default_kernels_overflow_is_refused(tmp_path):
    x = keras.Input((4,), name="x")
    qat = keras_qat.quantize_model(
        keras.Model(x, layers.Add(name="sum")([x, layers.ReLU(name="relu")(x)])), target="litert"
    )
    for name, limits in (("x_quantize", (-300.0, 300.0)), ("relu", (0.0, 1.0)), ("sum", (-1, 1))):
        qat.get_layer(name).observer.widen(*limits)
    with pytest.raises(TargetError, match="scale_ratio.*calibrate the model on"):
        keras_qat.export_litert(qat, tmp_path / "model.tflite")
    keras_qat.export_litert(qat, tmp_path / "model.tflite", target="reference")


@needs_micro
def test_dense_layers_round_twice_in_tensorflow_lite_micro(tmp_path):
    model = keras.Sequential([keras.Input((40,)), layers.Dense(64), layers.Dense(64)])
    x = np.random.default_rng(0).normal(size=(256, 40)).astype("float32")
    qat = keras_qat.quantize_model(model, calibration_data=x, target="tflite-micro")
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(qat, path, batch_size=256)
    ends = Runner(path)
    (source,), (output,) = ends.inputs, ends.outputs
    integers = half_away(x / source.scale[0]) + source.zero_point[0]
    integers = np.clip(integers, -128, 127).astype("int8")
    [(found,)] = run_on_micro([(path.read_bytes(), [integers], 1)])
    real = (found - np.float32(output.zero_point[0])) * output.scale[0]
    assert (called(qat, x) == real).all()
    qat.set_target("reference")
    assert (called(qat, x) != real).any()
