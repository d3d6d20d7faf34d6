"""The scheme "int16x8": activations of 16 bits, equal to the kernels of each target."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import (
    ExportError,
    InvalidInputStatsError,
    KerasQatError,
    TargetError,
    UnsupportedLayerError,
)
from tests import seeds
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, loosen
from tests.layers.litert_files import exported
from tests.layers.test_contract import CASES
from tests.micro import needs_micro
from tests.models import called


def network():
    """Makes a network of all operators that have rules for 16 bits."""
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(y))
    z = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.MaxPooling2D(2, name="max")(layers.Add(name="residual")([y, z]))
    z = layers.AveragePooling2D(3, strides=1, padding="same", name="average")(y)
    y = layers.Concatenate(name="joined")([y, z])
    y = layers.Conv2DTranspose(4, 2, strides=2, name="transposed")(y)
    y = layers.LeakyReLU(negative_slope=0.1, name="leaky")(y)
    y = layers.Multiply(name="product")([y, layers.Activation("sigmoid", name="gate")(y)])
    z = layers.Activation("tanh", name="tanh")(y)
    y = layers.Subtract(name="difference")([z, layers.ReLU(name="clipped")(y)])
    y = y + np.linspace(-1, 1, 4, dtype="float32")
    y = layers.ZeroPadding2D(1, name="padded")(y)
    y = layers.Flatten(name="flat")(layers.Reshape((2, 2), name="square")(pooled(y)))
    return keras.Model(x, layers.Dense(5, activation="softmax", name="head")(y))


def pooled(y):
    return layers.GlobalAveragePooling2D(name="mean")(y)


def images(count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype("float32")


def quantized(scheme="int16x8", **options):
    seeds.seed(0)
    return keras_qat.quantize_model(network(), scheme, calibration_data=images(), **options)


def verified(model, tmp_path, data=None, **options):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path, **options)
    data = images(24, seed=1) * 1.2 if data is None else data
    return keras_qat.verify(model, path, data, verbose=0)


@pytest.fixture(scope="module")
def model():
    return quantized()


def test_int16x8_equals_the_default_kernels(model, tmp_path):
    report = verified(model, tmp_path)
    assert report.kernels == "default" and report.exact, str(report)
    assert not report.not_compared
    tensors = keras_qat.inspect_litert(tmp_path / "model.tflite").tensors
    types = {each.name: each.dtype for each in tensors}
    assert types["head"] == types["image"] == types["conv"] == "int16"
    assert types["conv/kernel"] == "int8" and types["conv/bias"] == "int64"
    grids = [each.quantization for each in tensors if each.dtype == "int16" and each.quantization]
    assert {each.zero_point for each in grids} == {(0,)}


def small():
    x = keras.Input((6,), name="x")
    y = layers.Dense(4, activation="relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(2, name="out")(y))


def test_int16x8_has_steps_of_the_largest_magnitude_over_32767():
    x = keras.Input((3,))
    model = keras_qat.quantize_model(keras.Model(x, layers.Flatten(name="flat")(x)), "int16x8")
    data = np.array([[-2.0, 0.1, 0.5]], "float32")
    keras_qat.calibrate(model, data, verbose=0)
    scale, zero_point = model.get_layer("flat").output_grid()
    assert float(scale) == np.float32(2.0) * np.float32(1 / 32767) and int(zero_point) == 0
    np.testing.assert_allclose(called(model, data), data, atol=2.0 / 65534)


def test_int16x8_trains_and_is_saved(tmp_path):
    data = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    model = keras_qat.quantize_model(small(), "int16x8", calibration_data=data)
    model.compile("adam", "mse")
    before = np.array(model.get_layer("hidden").kernel)
    model.fit(data, data[:, :2], batch_size=8, verbose=0)
    assert (before != np.array(model.get_layer("hidden").kernel)).any()
    assert verified(model, tmp_path, data).exact
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert exported(loaded) == exported(model)


def test_int16x8_takes_no_statistics_of_inputs():
    with pytest.raises(InvalidInputStatsError, match="'x'|x_quantize"):
        keras_qat.quantize_model(small(), "int16x8", quantized_input_stats={"x": (0, 255)})


def test_int16x8_with_float_ends_equals_the_kernels(model, tmp_path):
    types = {"inference_input_type": "float32", "inference_output_type": "float32"}
    assert verified(model, tmp_path, **types).exact


@pytest.mark.parametrize(
    "types", [{"inference_input_type": "int8"}, {"inference_output_type": "uint8"}]
)
def test_int16x8_has_no_ends_of_8_bits(model, types, tmp_path):
    with pytest.raises(ExportError, match="another width"):
        keras_qat.export_litert(model, tmp_path / "model.tflite", **types)


def test_int16x8_of_a_single_layer_is_exact(tmp_path):
    data = np.random.default_rng(0).normal(size=(400, 6)).astype("float32")
    model = keras_qat.quantize_model(
        small(), overrides={"hidden": "int16x8"}, calibration_data=data
    )
    assert verified(model, tmp_path, data).exact
    report = keras_qat.inspect_litert(tmp_path / "model.tflite")
    types = {each.name: each.dtype for each in report.tensors}
    assert types["x"] == types["out"] == "int8" and types["hidden"] == "int16"
    names = [each.name for each in report.operators]
    assert names == ["QUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "FULLY_CONNECTED"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [{"conv": "int8", "transposed": "int4", "mean": None}, "ends_int8", {"residual": "int8"}],
)
@pytest.mark.parametrize(
    "target", ["litert", "reference", pytest.param("tflite-micro", marks=needs_micro)]
)
def test_int8_layers_in_an_int16x8_model_are_exact(overrides, target, tmp_path):
    model = quantized(overrides=overrides, target=target)
    options = {"batch_size": 1} if target == "tflite-micro" else {}
    assert verified(model, tmp_path, **options).exact


@pytest.mark.slow
@pytest.mark.parametrize("target", ["reference", pytest.param("tflite-micro", marks=needs_micro)])
def test_int16x8_equals_the_kernels_of_the_target(target, tmp_path):
    options = {"batch_size": 1} if target == "tflite-micro" else {}
    report = verified(quantized(target=target), tmp_path, **options)
    assert report.exact, str(report)


def test_int16x8_is_an_error_for_a_target_without_measured_kernels(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="dense")(x))
    model = keras_qat.quantize_model(model, "int16x8", target="litert-arm64")
    keras_qat.calibrate(model, np.eye(4, dtype="float32"), verbose=0)
    with pytest.raises(TargetError, match="'dense'"):
        keras_qat.export_litert(model, tmp_path / "model.tflite")


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(name="odd"),
        layers.PReLU(name="odd"),
        layers.UpSampling2D(2, interpolation="bilinear", name="odd"),
        layers.Activation("gelu", name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_int16x8_of_other_operators_is_an_error(layer):
    x = keras.Input((4, 4, 2))
    with pytest.raises(UnsupportedLayerError) as caught:
        keras_qat.quantize_model(keras.Model(x, layer(x)), "int16x8")
    assert "'odd'" in str(caught.value) and "16" in str(caught.value)


def test_int16x8_and_uint8_do_not_mix():
    with pytest.raises(KerasQatError, match="unsigned"):
        keras_qat.quantize_model(network(), "uint8", overrides={"head": "int16x8"})


@pytest.mark.slow
@pytest.mark.parametrize("case", first_of_each(CASES))
def test_int16x8_of_every_rule_equals_litert_or_is_an_error(case, tmp_path):
    prepared = Prepared(case)
    data = tuple(prepared.arrays)
    try:
        model = keras_qat.quantize_model(prepared.keras_model, "int16x8")
    except UnsupportedLayerError as error:
        assert error.layer and "16" in str(error), str(error)
        return
    keras_qat.calibrate(model, data, verbose=0)
    loosen(model, np.random.default_rng(1))
    report = verified(model, tmp_path, data)
    assert report.exact, str(report)
