"""write_compositions: operations that consist of simpler operations."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.graph import read_model
from keras_qat.passes.write_compositions import write_compositions
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.models import called
from tests.passes.graphs import applied, chains, maximum_difference

WRITTEN = {
    "var": lambda x: ops.var(x, axis=-1),
    "var, kept": lambda x: ops.var(x, axis=(1, 2), keepdims=True),
    "std": lambda x: ops.std(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "logsumexp, kept": lambda x: ops.logsumexp(x, axis=1, keepdims=True),
    "norm": lambda x: ops.norm(x, axis=-1),
    "norm, 1": lambda x: ops.norm(x, ord=1, axis=2),
    "norm, 3": lambda x: ops.norm(x, ord=3, axis=1, keepdims=True),
    "norm, inf": lambda x: ops.norm(x, ord=np.inf, axis=-1, keepdims=True),
    "norm, -inf": lambda x: ops.norm(x, ord=-np.inf, axis=2),
    "norm of matrices": lambda x: ops.norm(x, axis=(1, -1)),
    "norm of matrices, 1": lambda x: ops.norm(x, ord=1, axis=(1, 2)),
    "norm of matrices, inf": lambda x: ops.norm(x, ord=np.inf, axis=(1, 2), keepdims=True),
    "prod": lambda x: ops.prod(1.0 + 0.2 * x, axis=1),
    "prod, kept": lambda x: ops.prod(1.0 + 0.1 * x, axis=(-1, 2), keepdims=True),
    "cumsum": lambda x: ops.cumsum(x, axis=-1),
    "cumsum, other axis": lambda x: ops.cumsum(x, axis=1),
    "glu": lambda x: ops.glu(x, axis=-1),
    "glu, other axis": lambda x: ops.glu(x, axis=1),
    "roll": lambda x: ops.roll(x, (-2, 1), axis=(1, -2)),
    "along": lambda x: ops.take_along_axis(x, POSITIONS[:1], axis=-1),
    "along, other axis": lambda x: ops.take_along_axis(x, POSITIONS[:1, :, :3, :1], axis=2),
    "patches": lambda x: ops.image.extract_patches(x, 2),
    "patches, overlapping": lambda x: ops.image.extract_patches(x, (3, 2), strides=(2, 1)),
    "patches, padded": lambda x: ops.image.extract_patches(x, 3, strides=2, padding="same"),
    "patches, dilated": lambda x: ops.image.extract_patches(x, 2, strides=1, dilation_rate=2),
}
POSITIONS = np.random.default_rng(1).integers(0, 4, (2, 6, 5, 7))
DATA = np.random.default_rng(0).normal(size=(16, 6, 5, 4)).astype("float32")


def model_of(function):
    x = keras.Input(DATA.shape[1:])
    return keras.Model(x, function(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("function", WRITTEN.values(), ids=WRITTEN)
def test_write_compositions_keeps_function_and_exactness(function):
    model = model_of(function)
    graph = applied(write_compositions, model)
    assert chains(graph) != chains(read_model(model))
    assert maximum_difference(graph, model, DATA) < 1e-5
    assert_equals_litert(Prepared(Case("composition", (), lambda: model_of(function))))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("function", WRITTEN.values(), ids=WRITTEN)
def test_write_compositions_has_little_noise(function):
    model = model_of(function)
    quantized = keras_qat.quantize_model(model, calibration_data=DATA)
    exact = called(model, DATA)
    error = called(quantized, DATA) - exact
    assert 10 * np.log10(np.mean(exact**2) / np.mean(error**2)) > 30  # dB


def test_write_compositions_counts_nonzero_values():
    model = model_of(lambda x: ops.norm(ops.relu(x), ord=0, axis=-1))
    assert maximum_difference(applied(write_compositions, model), model, DATA) == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.norm(x),
        lambda x: ops.prod(x, axis=(0, 1)),
        lambda x: ops.cumsum(x, axis=0),
        lambda x: ops.cumsum(x),
    ],
    ids=["norm", "prod", "cumsum", "cumsum of all"],
)
def test_write_compositions_refuses_the_batch(function):
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="batch"):
        keras_qat.clone_model(model_of(function))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.take_along_axis(x, POSITIONS[:1, :1, :1, :4], axis=0), "axis=0"),
        (lambda x: ops.take_along_axis(x, POSITIONS[:1].ravel()), "axis=None"),
        (lambda x: ops.take_along_axis(x, ops.cast(x > 0, "int32"), axis=1), "constant positions"),
    ],
)
def test_write_compositions_refuses_other_positions_along_an_axis(function, message):
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match=message):
        keras_qat.clone_model(model_of(function))


@pytest.mark.parametrize(("order", "axis"), [("nuc", (1, 2)), (2, (1, 2)), (-1, 1)])
def test_write_compositions_refuses_singular_values(order, axis):
    model = model_of(lambda x: ops.norm(x, ord=order, axis=axis))
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="singular.*'norm"):
        keras_qat.clone_model(model)


def test_write_compositions_refuses_a_product_of_unknown_size():
    x = keras.Input((None, 3))
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="factors is not known"):
        write_compositions(read_model(keras.Model(x, ops.prod(x, axis=1))))


def test_write_compositions_does_not_train_the_triangle_of_a_cumulative_sum():
    quantized = keras_qat.quantize_model(model_of(lambda x: ops.cumsum(x, axis=-1)))
    assert quantized.trainable_weights == []
    [kernel] = [w for w in quantized.weights if w.path.endswith("kernel")]
    np.testing.assert_array_equal(kernel, np.triu(np.ones((4, 4))))


def test_write_compositions_takes_activations_by_name():
    model = model_of(lambda x: layers.Dense(6, activation="glu")(x))
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(DATA), model(DATA), atol=1e-5)


def test_write_compositions_refuses_sparsemax():
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="sorts.*'sparse'"):
        keras_qat.clone_model(model_of(layers.Activation("sparsemax", name="sparse")))
