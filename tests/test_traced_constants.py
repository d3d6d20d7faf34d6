"""Constants, keys, sizes and ranks in the call of a layer, against Keras and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.own_layers import Own, assert_exact, data_for, model_of, weight


@pytest.mark.parametrize(
    ("table", "call"),
    [
        ((4, 3), lambda layer, x: x + layer.table[None]),
        ((6, 3), lambda layer, x: x + layer.table[:4]),
        ((4, 3), lambda layer, x: ops.relu(x)[...] + layer.table[...]),
    ],
)
def test_keys_that_are_not_tuples_are_traced(table, call):
    model = model_of((4, 3), call, weight(*table))
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)


def test_key_of_the_output_of_an_inner_layer_is_traced():
    def make(layer):
        layer.inner = layers.Dense(3, name="inner")

    model = model_of((4, 3), lambda layer, x: layer.inner(x)[...], make)
    (inner,) = model.get_layer("own")._layers
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert type(inner._outbound_nodes) is list
    assert type(model.input) is keras.KerasTensor


@pytest.mark.parametrize(
    "ids",
    [
        lambda x: ops.arange(4),
        lambda x: ops.expand_dims(ops.arange(1, 5), 0),
        lambda x: ops.tile(ops.expand_dims(ops.arange(4), 0), [ops.shape(x)[0], 1]),
    ],
)
def test_embedding_of_constant_positions_is_a_weight(ids, tmp_path):
    def make(layer):
        layer.positions = layers.Embedding(6, 3)
        layer.positions.build(())

    model = model_of((4, 3), lambda layer, x: x + layer.positions(ids(x)), make)
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert sum(tuple(v.shape[-2:]) == (4, 3) for v in clone.trainable_variables) == 1


def test_embedding_of_constant_positions_is_exact(tmp_path):
    def make(layer):
        layer.positions, layer.words = layers.Embedding(4, 3), layers.Dense(3)
        layer.positions.build(())

    def call(layer, x):
        return layer.words(x) + layer.positions(ops.arange(ops.shape(x)[1]))

    assert_exact(model_of((4, 3), call, make), tmp_path)


def bias_network(layer):
    """Gives a layer a table of coordinates, and a network that makes a bias for each of them."""
    coordinates = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), -1)
    layer.table = layer.add_weight(shape=(9, 2), name="table", trainable=False)
    layer.table.assign(coordinates.reshape(9, 2))
    layer.hidden, layer.last = layers.Dense(8, name="hidden"), layers.Dense(2, use_bias=False)
    layer.hidden.build((None, 2))
    layer.last.build((None, 8))


def biased(layer, x):
    bias = 4.0 * ops.sigmoid(layer.last(ops.relu(layer.hidden(layer.table))))
    bias = ops.take(bias, np.arange(16).reshape(4, 4) % 9, axis=0)
    return ops.softmax(x + ops.transpose(bias, (2, 0, 1))[None])


def test_layers_on_a_constant_are_one_trainable_constant(tmp_path):
    """The constant trains in their place, like the results of other computations with weights."""
    model = model_of((2, 4, 4), biased, bias_network)
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert 2 * 4 * 4 in [np.prod(v.shape) for v in clone.trainable_variables]
    qat = keras_qat.quantize_model(model, calibration_data=data)
    before = [np.array(ops.convert_to_numpy(v)) for v in qat.trainable_variables]
    qat.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    qat.train_on_batch(data, np.ones((len(data), 3), "float32"))
    for variable, old in zip(qat.trainable_variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) != old).any(), variable.path
    qat.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras_qat.export_litert(loaded, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_layer_on_a_constant_and_on_a_tensor_is_refused():
    def make(layer):
        weight(1, 6, 4, trainable=False)(layer)
        layer.inner = layers.Dense(4, name="inner")

    def call(layer, x):
        return layer.inner(x) + layer.inner(layer.table)

    with pytest.raises(UnsupportedLayerError, match="two weights that train separately"):
        keras_qat.clone_model(model_of((6, 4), call, make))


def test_sizes_that_call_computes_as_tensors_are_exact(tmp_path):
    def make(layer):
        layer.conv = layers.Conv2D(4, 2, strides=2, name="conv")
        layer.conv.build((None, 4, 4, 3))

    def call(layer, x):
        batch, length, channels = ops.shape(x)
        side = ops.cast(ops.sqrt(ops.cast(length, "float32")), "int32")
        return ops.reshape(layer.conv(ops.reshape(x, (batch, side, side, channels))), (batch, 16))

    x = keras.Input((16, 3), name="x")
    model = keras.Model(x, layers.Dense(3, name="head")(Own(call, make, name="own")(x)))
    assert_exact(model, tmp_path)


def test_rank_that_call_computes_with_is_exact(tmp_path):
    """Rotary position embeddings with the number of axes as an axis."""

    def call(layer, x):
        rank = ops.ndim(x)
        places: list[slice | None] = [None] * (rank or 1)
        places[1] = places[-1] = slice(None)
        angles = ops.convert_to_tensor(np.arange(20.0, dtype="float32").reshape(5, 4))
        angles = ops.expand_dims(angles, [axis for axis in range(rank) if places[axis] is None])
        turned = ops.stack([-x[..., 1::2], x[..., ::2]], rank)
        assert rank == 4 and rank != 3 and 2 * rank - 1 > 6 and -rank < rank % 3
        return x * ops.cos(angles) + ops.reshape(turned, ops.shape(x)) * ops.sin(angles)

    x = keras.Input((5, 2, 4), name="x")
    y = Own(call, name="own")(layers.Dense(4, name="dense")(x))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten(name="flat")(y)))
    assert_exact(model, tmp_path)


def test_output_that_is_none_is_left_out():
    """Keras believes the declared outputs. Nothing takes the second output."""

    class Pair(Own):
        def compute_output_spec(self, x):
            return [keras.KerasTensor(x.shape), keras.KerasTensor(x.shape)]

    x = keras.Input((5, 4), name="x")
    y, _ = Pair(lambda layer, x: (ops.softmax(x) * 2.0, None), name="own")(x)
    model = keras.Model(x, y)
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), 2.0 * ops.softmax(data), atol=1e-6)
