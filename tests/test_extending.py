"""New layers on the tensors of a quantized model."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers.models.observed_ranges import named_observers
from tests.models import called, images, network, quantized_network


def with_a_head(base):
    return keras.Model(
        base.inputs, keras.layers.Dense(4, name="new")(base.get_layer("mean").output)
    )


def ranges(model):
    return {name: observer.limits for name, observer in named_observers(model)}


def test_head_on_a_quantized_model_is_trained_and_exported_with_it(tmp_path):
    base, path = quantized_network(), tmp_path / "model.tflite"
    kept = {name: own for name, own in ranges(base).items() if name != "head"}
    model = keras_qat.quantize_model(with_a_head(base))
    assert model.lacking_ranges == ("new",)
    assert {name: own for name, own in ranges(model).items() if name != "new"} == kept
    assert all(own.is_held for name, own in named_observers(model) if name != "new")
    model.compile("sgd", "mse")
    model.fit(images(), np.zeros((len(images()), 4)), verbose=0)
    assert {name: own for name, own in ranges(model).items() if name != "new"} == kept
    keras_qat.export_litert(model, path)
    assert keras_qat.verify(model, path, images(), verbose=0).exact
    assert ranges(base).keys() == {*kept, "head"}  # which is not changed


def test_head_before_training_leaves_the_integers_of_the_model():
    base = quantized_network()
    model = keras_qat.quantize_model(with_a_head(base), default_ranges_stats=(-1.0, 1.0))
    both = [keras.Model(each.inputs[0], each.get_layer("mean").output) for each in (base, model)]
    before, after = (called(each, images()) for each in both)
    assert (before == after).all()


@pytest.mark.slow
def test_layers_of_a_quantized_model_keep_their_schemes_under_a_head():
    base = keras_qat.quantize_model(
        network(), "int4", overrides={"mean": None}, calibration_data=images()
    )
    model = keras_qat.quantize_model(with_a_head(base), calibration_data=images())
    found = {each.name: each.scheme and each.scheme.name for each in model.layers[1:]}
    assert found["conv"] == "int4" and found["new"] == "int8" and found["mean"] is None


def test_check_takes_a_head_on_a_quantized_model():
    assert keras_qat.check(with_a_head(quantized_network())).ok


def test_new_head_keeps_the_storage_of_narrow_weights():
    source = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="old")])
    qat = keras_qat.quantize_model(source, "int4", storage="int8")
    extended = keras.Model(qat.inputs, keras.layers.Dense(2, name="new")(qat.outputs[0]))
    made = keras_qat.quantize_model(extended, "int4")
    assert made.get_layer("old").scheme.storage == "int8"
    assert made.get_layer("new").scheme.storage is None
