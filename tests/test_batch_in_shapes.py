"""Layers that compute with the size of the batch. The oracles are Keras and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.quantizers.min_max import MinMax
from tests.own_layers import Own, assert_exact, classes_of, data_for, model_of, weight


def test_token_for_each_sample_and_windows_are_exact(tmp_path):
    def call(layer, x):
        batch = ops.shape(x)[0]
        y = ops.softmax(windows_of(x, batch, batch * 4) + ops.broadcast_to(layer.bias, (4, 4)))
        y = ops.reshape(image_of(y, batch), (batch, 16, 4))
        return ops.concatenate([ops.tile(layer.table, [batch, 1, 1]), y], axis=1)

    def make(layer):
        weight(1, 1, 4)(layer)
        layer.bias = layer.add_weight(shape=(4, 4), name="bias", initializer="random_normal")

    assert_exact(model_of((4, 4, 4), call, make), tmp_path, batch_sizes=(None, 2))


@pytest.mark.parametrize(
    "token",
    [
        lambda table, batch: ops.broadcast_to(table, (batch, 1, 4)),
        lambda table, batch: ops.tile(table, [batch, 1, 1]),
        lambda table, batch: ops.repeat(table, batch, axis=0),
        lambda table, batch: ops.zeros((batch, 1, 4)) + table,
        lambda table, batch: ops.ones((batch, 1, 1)) * table,
    ],
)
def test_clone_of_a_token_for_each_sample_equals_keras(token):
    def call(layer, x):
        return ops.concatenate([token(layer.table, ops.shape(x)[0]), x], axis=1)

    model = model_of((5, 4), call, weight(1, 1, 4))
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    becomes = "InputLayer QStridedSlice QBatchNormalization QConcatenate QFlatten QDense"
    assert classes_of(clone) == becomes.split()


def test_small_values_for_each_sample_run_on_the_target(tmp_path):
    """They are added to a tensor that is always 0, whose scale must not be far larger."""

    def call(layer, x):
        batch = ops.shape(x)[0]
        return ops.concatenate([ops.tile(layer.table * 0.1, [batch, 1, 1]), 0.01 * x], axis=1)

    assert_exact(model_of((5, 4), call, weight(1, 3, 4)), tmp_path)


@pytest.mark.slow
def test_vision_transformer_with_the_batch_in_shapes_is_exact(tmp_path):
    def make(layer):
        weight(1, 1, 4)(layer)
        layer.queries = layer.add_weight(shape=(1, 3, 4), name="queries", initializer="normal")
        layer.norm, layer.pool = layers.LayerNormalization(), layers.MultiHeadAttention(2, 2)

    def call(layer, x):
        batch, height, width, channels = ops.shape(x)
        y = layer.norm(ops.reshape(x, (batch, -1, channels)))
        y = ops.concatenate([ops.broadcast_to(layer.table, (batch, 1, channels)), y], axis=1)
        assert tuple(y.shape[1:]) in {(height * width + 1, channels), (None, channels)}
        return layer.pool(ops.tile(layer.queries, [batch, 1, 1]), y)

    assert_exact(model_of((2, 3, 4), call, make), tmp_path)


def test_layer_that_returns_a_token_for_each_sample_equals_keras():
    x = keras.Input((5, 4), name="x")
    token = Own(lambda self, x: ops.repeat(self.table, ops.shape(x)[0], 0), weight(1, 2, 4))(x)
    model = keras.Model(x, layers.Concatenate(axis=1)([layers.Dense(4)(x), token]))
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)


def test_layers_after_a_reshape_of_unknown_size_are_opened():
    def call(layer, x):
        return ops.reshape(x, (ops.shape(x)[0], -1, 4))

    x = keras.Input((2, 3, 4), name="x")
    y = layers.LayerNormalization()(Own(call)(x))
    y = layers.LayerNormalization()(Own(call)(y))
    assert y.shape == (None, None, 4)
    model = keras.Model(x, y)
    clone, data = keras_qat.clone_model(model), data_for(model)
    assert clone.output_shape == (None, 6, 4)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)


def windows_of(x, batch, count):
    """Cuts an image of 4 x 4 into windows of 2 x 2."""
    parts = ops.transpose(ops.reshape(x, (batch, 2, 2, 2, 2, 4)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(parts, (count, 4, 4))


def image_of(windows, batch):
    parts = ops.transpose(ops.reshape(windows, (batch, 2, 2, 2, 2, 4)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(parts, (batch, 4, 4, 4))


@pytest.mark.slow
def test_attention_in_windows_is_exact_for_each_batch_size(tmp_path):
    def make(layer):
        layer.norm, layer.dense = layers.LayerNormalization(), layers.Dense(4)
        layer.bias = layer.add_weight(shape=(1, 4, 1, 4), name="bias", initializer="normal")

    def call(layer, x):
        batch = ops.shape(x)[0]
        y = layer.dense(layer.norm(windows_of(x, batch, batch * 4)))
        scores = ops.matmul(y, ops.transpose(y, (0, 2, 1)))
        scores = ops.reshape(scores, (ops.shape(scores)[0] // 4, 4, 4, 4)) + layer.bias
        y = ops.matmul(ops.softmax(ops.reshape(scores, (batch * 4, 4, 4))), y)
        return image_of(y, batch)

    model = model_of((4, 4, 4), call, make)
    assert_exact(model, tmp_path, batch_sizes=(None, 2))


def test_windows_of_a_functional_model_equal_keras():
    x = keras.Input((4, 4, 4), name="x")
    y = layers.Dense(4)(layers.LayerNormalization()(windows_of(x, -1, -1)))
    model = keras.Model(x, image_of(y, -1))
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)


@pytest.mark.parametrize(
    "split",
    [
        lambda layer, y: image_of(y, ops.shape(y)[0] // 4),
        lambda layer, y: image_of(ops.softmax(y), -1),
        lambda layer, y: layer.inner(layer.inner(y, count=1), count=4),
    ],
)
def test_layer_that_splits_the_windows_of_another_layer_is_exact(split, tmp_path):
    """Both layers are layers of the model. The second one divides the number of windows."""

    def divide(layer, x, count):
        return x if count == 1 else image_of(x, ops.shape(x)[0] // count)

    def make(layer):
        layer.inner = Own(divide, name="inner")

    x = keras.Input((4, 4, 4), name="x")
    y = Own(lambda layer, x: windows_of(x, ops.shape(x)[0], ops.shape(x)[0] * 4), name="cut")(x)
    y = Own(split, make, name="join")(layers.Dense(4, name="dense")(y))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten(name="flat")(y)))
    assert_exact(model, tmp_path, batch_sizes=(None, 2))


def test_constant_for_each_window_equals_keras():
    def call(layer, y):
        return ops.concatenate([ops.tile(layer.table, [ops.shape(y)[0], 1, 1]), y], axis=1)

    x = keras.Input((4, 4, 4), name="x")
    y = Own(call, weight(1, 2, 4), name="own")(windows_of(x, -1, -1))
    model = keras.Model(x, ops.reshape(y, (-1, 4, 6, 4)))
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)


def test_calibration_takes_the_extremes_of_a_sample_from_all_of_its_windows(monkeypatch):
    x = keras.Input((4, 2), name="x")
    y = ops.reshape(layers.Dense(2, use_bias=False, name="dense")(ops.reshape(x, (-1, 2))), (-1, 8))
    model = keras.Model(x, y)
    model.get_layer("dense").set_weights([np.eye(2, dtype="float32")])
    data = np.linspace(-3, 3, 512, dtype="float32").reshape(64, 4, 2)
    rule = MinMax()
    seen = []
    monkeypatch.setattr(type(rule), "range", lambda self, ends, sums: seen.append(ends) or (-3, 3))
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, data, range_rule=rule, verbose=0)
    flat = data.reshape(64, -1)
    wanted = np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)
    assert seen and all((ends == wanted).all() for ends in seen)


@pytest.mark.parametrize(
    "call",
    [
        lambda layer, x: x / ops.cast(ops.shape(x)[0], "float32"),
        lambda layer, x: x[:, : ops.shape(x)[0] - 1],
        lambda layer, x: x[: ops.shape(x)[0] // 2],
    ],
)
def test_call_that_computes_with_the_size_of_the_batch_is_refused(call):
    x = keras.Input((4,), name="x")
    with pytest.raises(UnsupportedLayerError, match="computes with the size of the batch"):
        keras_qat.clone_model(keras.Model(x, Own(call, name="own")(x)))


def test_constant_for_each_sample_of_ids_alone_is_refused():
    x = keras.Input((4,), dtype="int32", name="x")
    y = Own(lambda self, x: ops.tile(self.table, [ops.shape(x)[0], 1, 1]), weight(1, 2, 3))(x)
    with pytest.raises(UnsupportedLayerError, match="no tensor of real values"):
        keras_qat.clone_model(keras.Model(x, y))


def test_constant_for_each_sample_takes_the_batch_of_a_tensor_inside_the_layer():
    """The layer takes ids alone, and returns their vectors and a table for each sample."""

    def make(layer):
        weight(1, 2, 3)(layer)
        layer.words = layers.Embedding(5, 3)
        layer.words.build(())

    def call(layer, ids):
        return layer.words(ids), ops.tile(layer.table, [ops.shape(ids)[0], 1, 1])

    x = keras.Input((4,), dtype="int32", name="x")
    words, table = Own(call, make, name="own")(x)
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate(axis=1)([words, table])))
    clone, ids = keras_qat.clone_model(model), np.arange(20).reshape(5, 4) % 5
    np.testing.assert_allclose(clone(ids), model(ids), atol=1e-6)


def test_normalized_token_for_each_sample_equals_keras():
    def make(layer):
        weight(3, 4)(layer)
        layer.norm = layers.LayerNormalization()
        layer.norm.build((None, 3, 4))

    def call(layer, x):
        rows = layer.norm(ops.expand_dims(ops.convert_to_tensor(layer.table), axis=0))
        return ops.concatenate([ops.repeat(rows, ops.shape(x)[0], axis=0), x], axis=1)

    model = model_of((5, 4), call, make)
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert (3, 4) in [tuple(v.shape[-2:]) for v in clone.trainable_variables]
