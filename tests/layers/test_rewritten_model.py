"""Outputs keep their names, also if another layer makes them after rewriting."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.layers import RewrittenModel
from tests.quick import some_quick

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 8, 8, 3)).astype("float32")
TARGETS = {"steer": RNG.normal(size=(16, 1)), "brake": RNG.random((16, 1)) > 0.5}


def driver(as_dict=False):
    """Makes a model. After rewriting, other layers make its outputs."""
    image = keras.Input((8, 8, 3), name="image")
    y = layers.Flatten(name="flat")(layers.Conv2D(4, 3, name="conv")(image))
    steer = layers.ReLU(name="steer")(layers.Dense(1, name="hidden")(y))
    brake = layers.Dense(1, activation="sigmoid", name="brake")(y)
    outputs = {"b": brake, "a": steer} if as_dict else [steer, brake]
    return keras.Model(image, outputs, name="driver")


@pytest.mark.parametrize(
    "rewrite", some_quick([keras_qat.clone_model, keras_qat.quantize_model], 1)
)
def test_rewritten_model_takes_losses_by_name(rewrite, tmp_path):
    model = rewrite(driver())
    assert list(model.output_names) == ["steer", "brake"]
    model.compile("sgd", loss={"steer": "mse", "brake": "binary_crossentropy"})
    model.fit(IMAGES, TARGETS, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model) and list(again.output_names) == ["steer", "brake"]
    again.fit(IMAGES, TARGETS, epochs=1, verbose=0)


def test_rewritten_model_keeps_output_names_when_cloned():
    clone = keras_qat.clone_model(driver())
    assert type(clone) is RewrittenModel
    assert list(keras_qat.quantize_model(clone).output_names) == ["steer", "brake"]
    assert list(keras.models.clone_model(clone).output_names) == ["steer", "brake"]


def test_stripped_model_has_the_output_names():
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(driver()))
    assert list(plain.output_names) == ["steer", "brake"]


def test_rewritten_model_names_two_outputs_of_a_shared_layer():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    dense = layers.Dense(2, name="dense")
    outputs = [layers.ReLU(name="x")(dense(a)), layers.ReLU(name="y")(dense(b))]
    clone = keras_qat.clone_model(keras.Model([a, b], outputs))
    assert list(clone.output_names) == ["x", "y"]


@pytest.mark.parametrize(("as_dict", "names"), [(False, {"steer", "brake"}), (True, {"a", "b"})])
def test_file_signature_has_the_output_names(as_dict, names, tmp_path):
    quantized = keras_qat.quantize_model(driver(as_dict), calibration_data=IMAGES)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite", inference_output_type="float32")
    runner = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    assert set(runner.get_output_details()) == names
    parameters = runner.get_input_details()["image"]["quantization_parameters"]
    scale, zero_point = parameters["scales"][0], parameters["zero_points"][0]
    integers = np.clip(np.round(IMAGES[:1] / scale) + zero_point, -128, 127).astype("int8")
    results = runner(image=integers)
    expected = quantized(((integers.astype("float32") - zero_point) * scale).astype("float32"))
    if not as_dict:
        expected = {"steer": expected[0], "brake": expected[1]}
    for name, value in expected.items():
        np.testing.assert_array_equal(results[name], np.asarray(value))
