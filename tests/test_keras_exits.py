"""Keras's functions that save, copy and export models work, or raise a typed error."""

import copy
import pickle

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_qat
from keras_qat.errors import ExportError, MissingRangeError
from tests.models import quantized, small_images, small_network


@pytest.fixture(scope="module")
def models():
    """Makes a quantized and a rewritten model."""
    both = quantized(small_network(), small_images()), keras_qat.clone_model(small_network())
    return dict(zip(("quantized", "rewritten"), both, strict=True))


def predicted(model):
    return np.asarray(model(small_images(), training=False))


def with_weights(model, other):
    model.set_weights(other.get_weights())
    return model


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", ["quantized", "rewritten"])
def test_keras_save_can_be_loaded_by_keras_and_load_model(name, ending, models, tmp_path):
    model = models[name]
    model.save(tmp_path / f"method.{ending}")
    keras.saving.save_model(model, tmp_path / f"function.{ending}")
    for path in tmp_path.iterdir():
        for load in (keras.models.load_model, keras_qat.load_model):
            loaded = load(path)
            assert type(loaded) is type(model)
            np.testing.assert_array_equal(predicted(loaded), predicted(model))


def network_with_axes():
    """Normalizes over one axis, and reduces over one axis and over two."""
    x = keras.Input((4, 4, 6), name="image")
    y = keras.layers.LayerNormalization(name="norm")(x)
    mean = keras.ops.mean(y, axis=[1, 2])
    highest = keras.ops.max(keras.ops.max(y, axis=1), axis=1)
    return keras.Model(x, keras.layers.Concatenate(name="both")([mean, highest]))


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_layers_with_several_axes_are_saved_and_loaded(ending, tmp_path):
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 6)).astype("float32")
    source = network_with_axes()
    for model in (quantized(source, data), keras_qat.clone_model(source)):
        model.save(tmp_path / f"model.{ending}")
        loaded = keras.models.load_model(tmp_path / f"model.{ending}")
        expected = np.asarray(model(data, training=False))
        np.testing.assert_array_equal(np.asarray(loaded(data, training=False)), expected)


def reloaded_weights(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    return clone


WAYS = {
    "weights": reloaded_weights,
    "json": lambda m, _: with_weights(keras.models.model_from_json(m.to_json()), m),
    "config": lambda m, _: with_weights(type(m).from_config(m.get_config()), m),
    "clone": lambda m, _: with_weights(keras.models.clone_model(m), m),
    "pickle": lambda m, _: pickle.loads(pickle.dumps(m)),
    "deepcopy": lambda m, _: copy.deepcopy(m),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["quantized", "rewritten"])
def test_keras_copy_of_a_model_has_equal_outputs(name, way, models, tmp_path):
    model = models[name]
    made = WAYS[way](model, tmp_path)
    assert type(made) is type(model) and made is not model
    np.testing.assert_array_equal(predicted(made), predicted(model))


def test_keras_export_as_litert_equals_export_litert(models, tmp_path, capsys):
    arguments = {"inference_input_type": "uint8"}
    models["quantized"].export(tmp_path / "keras.tflite", format="litert", **arguments)
    assert "Saved artifact" in capsys.readouterr().out
    keras_qat.export_litert(models["quantized"], tmp_path / "ours.tflite", **arguments)
    assert (tmp_path / "keras.tflite").read_bytes() == (tmp_path / "ours.tflite").read_bytes()
    Interpreter(str(tmp_path / "keras.tflite")).allocate_tensors()


def test_keras_export_as_a_saved_model_has_equal_outputs(models, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    models["quantized"].export(tmp_path / "saved", verbose=False)
    loaded = tensorflow.saved_model.load(tmp_path / "saved")
    found = loaded.serve(small_images()).numpy()
    np.testing.assert_array_equal(found, predicted(models["quantized"]))


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch", "nonsense", None])
def test_keras_export_refuses_other_formats(name, models, tmp_path):
    with pytest.raises(ExportError, match="litert.*tf_saved_model"):
        models["quantized"].export(tmp_path / "model", format=name)
    assert not list(tmp_path.iterdir())


def test_keras_export_refuses_a_signature(models, tmp_path):
    with pytest.raises(ExportError, match="input_signature"):
        models["quantized"].export(tmp_path / "x", format="litert", input_signature=[None])


@pytest.mark.parametrize("name", ["litert", "tf_saved_model"])
def test_keras_export_without_ranges_is_refused(name, tmp_path):
    with pytest.raises(MissingRangeError):
        keras_qat.quantize_model(small_network()).export(tmp_path / "model", format=name)
    assert not list(tmp_path.iterdir())
