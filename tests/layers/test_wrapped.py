"""Quantized models inside other models: exported unchanged, and NaN without ranges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_qat
from keras_qat.errors import NotQuantizedError
from tests.models import images, quantized, small_network


def wrappers(qat):
    x = keras.Input(qat.input_shape[1:])
    return [
        keras.Model(x, qat(x)),
        keras.Sequential([qat]),
        keras.Sequential([keras.Model(x, qat(x))]),
    ]


def test_export_of_a_plain_wrapper_is_that_of_its_model(tmp_path):
    data = images(8, shape=(4, 4, 3))
    qat = quantized(small_network(), data)
    keras_qat.export_litert(qat, tmp_path / "plain.tflite")
    for model in wrappers(qat):
        keras_qat.export_litert(model, tmp_path / "model.tflite")
        assert (tmp_path / "model.tflite").read_bytes() == (tmp_path / "plain.tflite").read_bytes()
        assert keras_qat.verify(model, tmp_path / "model.tflite", data, verbose=0).exact
        assert keras_qat.check(model).ok
    keras_qat.calibrate(wrappers(qat)[0], data, verbose=0)


def test_export_refuses_a_model_that_adds_to_a_quantized_one(tmp_path):
    qat = quantized(small_network(), images(8, shape=(4, 4, 3)))
    x = keras.Input((4, 4, 3))
    for model in (keras.Model(x, layers.Dense(2)(qat(x))), keras.Model(x, [qat(x), qat(x)])):
        with pytest.raises(NotQuantizedError) as caught:
            keras_qat.export_litert(model, tmp_path / "model.tflite")
        assert f"get_layer('{qat.name}')" in str(caught.value)


def test_wrapped_model_without_ranges_predicts_nan():
    qat, data = keras_qat.quantize_model(small_network()), images(8, shape=(4, 4, 3))
    for model in wrappers(qat):
        assert np.isnan(model.predict(data, verbose=0)).all()
    assert np.isnan(tf.function(lambda x: qat(x))(data)).all()
    keras_qat.calibrate(qat, data, verbose=0)
    for model in wrappers(qat):
        assert np.array_equal(model.predict(data, verbose=0), qat.predict(data, verbose=0))


def test_wrapped_model_without_ranges_trains_and_then_predicts():
    qat, data = keras_qat.quantize_model(small_network()), images(8, shape=(4, 4, 3))
    model = wrappers(qat)[0]
    model.compile("sgd", "mse")
    history = model.fit(data, np.zeros((8, 5)), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(model.predict(data, verbose=0)).all()
