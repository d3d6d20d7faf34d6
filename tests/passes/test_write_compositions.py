"""write_compositions: operations that consist of simpler operations."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.passes.write_compositions import write_compositions
from tests.layers.contract import Case, Prepared, assert_equals_litert
from tests.passes.graphs import applied, maximum_difference

WRITTEN = {
    "var": lambda x: ops.var(x, axis=-1),
    "var, kept": lambda x: ops.var(x, axis=(1, 2), keepdims=True),
    "std": lambda x: ops.std(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "logsumexp, kept": lambda x: ops.logsumexp(x, axis=1, keepdims=True),
    "glu": lambda x: ops.glu(x, axis=-1),
    "glu, other axis": lambda x: ops.glu(x, axis=1),
    "roll": lambda x: ops.roll(x, (-2, 1), axis=(1, -2)),
    "patches": lambda x: ops.image.extract_patches(x, 2),
    "patches, overlapping": lambda x: ops.image.extract_patches(x, (3, 2), strides=(2, 1)),
    "patches, padded": lambda x: ops.image.extract_patches(x, 3, strides=2, padding="same"),
    "patches, dilated": lambda x: ops.image.extract_patches(x, 2, strides=1, dilation_rate=2),
}
DATA = np.random.default_rng(0).normal(size=(16, 6, 5, 4)).astype("float32")


def model_of(function):
    x = keras.Input(DATA.shape[1:])
    return keras.Model(x, function(x))


@pytest.mark.parametrize("function", WRITTEN.values(), ids=WRITTEN)
def test_write_compositions_keeps_function_and_exactness(function):
    model = model_of(function)
    graph = applied(write_compositions, model)
    assert len(graph.nodes) > 2
    assert maximum_difference(graph, model, DATA) < 1e-5
    assert_equals_litert(Prepared(Case("composition", (), lambda: model_of(function))))


@pytest.mark.parametrize("function", WRITTEN.values(), ids=WRITTEN)
def test_write_compositions_has_little_noise(function):
    model = model_of(function)
    quantized = keras_qat.quantize_model(model, calibration_data=DATA)
    exact = model.predict(DATA, verbose=0)
    error = quantized.predict(DATA, verbose=0) - exact
    assert 10 * np.log10(np.mean(exact**2) / np.mean(error**2)) > 30  # dB


def test_write_compositions_takes_activations_by_name():
    model = model_of(lambda x: layers.Dense(6, activation="glu")(x))
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(DATA), model(DATA), atol=1e-5)


def test_write_compositions_leaves_patches_with_channels_first():
    model = model_of(lambda x: ops.image.extract_patches(x, 2, data_format="channels_first"))
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="no integer form"):
        keras_qat.clone_model(model)


def test_write_compositions_refuses_sparsemax():
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="sorts.*'sparse'"):
        keras_qat.clone_model(model_of(layers.Activation("sparsemax", name="sparse")))
