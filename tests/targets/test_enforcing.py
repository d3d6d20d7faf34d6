"""export_litert(target=...): errors before a file is written, and warnings."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidTargetError, TargetError, TargetFallbackWarning
from tests.models import images, network


def quantized(model, data=None, **options):
    result = keras_qat.quantize_model(model, **options)
    keras_qat.calibrate(result, images() if data is None else data, verbose=0)
    return result


def softplus():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="conv")(x)
    return keras.Model(x, layers.Activation("softplus", name="act")(y))


def normalized():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.LayerNormalization(name="norm")(layers.Conv2D(4, 3)(x)))


@pytest.mark.parametrize("target", ["litert", "tflite-micro", "ethos-u"])
def test_export_for_a_target_writes_a_model_that_runs_without_warning(target, tmp_path):
    model = quantized(network())
    keras_qat.export_litert(model, tmp_path / "any.tflite")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_qat.export_litert(model, tmp_path / "for.tflite", target=target)
    assert (tmp_path / "for.tflite").read_bytes() == (tmp_path / "any.tflite").read_bytes()


def test_export_for_a_target_refuses_a_model_that_does_not_run(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(TargetError, match="FULLY_CONNECTED of 'head'.*int8_per_tensor") as error:
        keras_qat.export_litert(quantized(network()), path, target="edgetpu")
    assert error.value.layer == "head" and not any(tmp_path.iterdir())
    assert [each.tensor for each in error.value.violations] == ["head"]


def test_export_for_a_target_passes_after_the_action_of_the_error(tmp_path):
    model = quantized(network(), overrides={keras.layers.Dense: "int8_per_tensor"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_qat.export_litert(model, tmp_path / "model.tflite", target="edgetpu")
    report = keras_qat.verify(model, tmp_path / "model.tflite", images(32, seed=1), verbose=0)
    assert report.exact


def test_export_for_a_target_warns_once_of_fallbacks(tmp_path):
    with pytest.warns(TargetFallbackWarning) as caught:
        keras_qat.export_litert(quantized(softplus()), tmp_path / "model.tflite", target="ethos-u")
    (message,) = [str(each.message) for each in caught]
    assert "CAST of 'act'" in message and "GATHER of 'act'" in message and "ADD" not in message
    assert message.count('activations="substitute"') == 1
    assert caught[0].filename == __file__
    assert (tmp_path / "model.tflite").exists()


def test_export_for_a_target_is_quiet_after_the_action_of_the_warning(tmp_path):
    model = quantized(softplus(), activations="substitute")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_qat.export_litert(model, tmp_path / "model.tflite", target="ethos-u")


def test_export_for_a_target_names_every_operator_that_does_not_run(tmp_path):
    with pytest.raises(TargetError) as error:
        keras_qat.export_litert(quantized(normalized()), tmp_path / "m.tflite", target="ethos-u")
    assert all(each.layer.startswith("norm") for each in error.value.violations)
    message = str(error.value)
    for code in {each.operator for each in error.value.violations}:
        assert f"{code} of 'norm" in message or f"{code} (" in message
    assert "use BatchNormalization" in message


def test_export_for_the_edge_tpu_warns_of_float_inputs(tmp_path):
    model = quantized(network(), overrides={keras.layers.Dense: "int8_per_tensor"})
    with pytest.warns(TargetFallbackWarning, match="QUANTIZE.*inference_input_type"):
        keras_qat.export_litert(
            model, tmp_path / "m.tflite", inference_input_type="float32", target="edgetpu"
        )


def test_export_refuses_an_unknown_target_first(tmp_path):
    uncalibrated = keras_qat.quantize_model(network())
    with pytest.raises(InvalidTargetError, match="'edgetpu'"):
        keras_qat.export_litert(uncalibrated, tmp_path / "model.tflite", target="tpu")


def test_export_of_uint8_runs_on_the_edge_tpu_but_not_on_microcontrollers(tmp_path):
    model = quantized(network(), scheme="uint8")
    keras_qat.export_litert(model, tmp_path / "model.tflite", target="edgetpu")
    with pytest.raises(TargetError, match='scheme="int8"'):
        keras_qat.export_litert(model, tmp_path / "micro.tflite", target="tflite-micro")
    assert np.all([path.name != "micro.tflite" for path in tmp_path.iterdir()])
