"""split_regularizers: a penalty stays on the output of its layer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.pipeline import DEFAULT_REWRITES
from keras_qat.passes.split_regularizers import split_regularizers
from tests.passes.graphs import applied, chains


def penalized(kind="l2", **kwargs):
    return layers.Dense(4, name="layer", activity_regularizer=kind, **kwargs)


@pytest.mark.parametrize(
    "chain",
    [
        (penalized, layers.BatchNormalization, layers.ReLU),
        (lambda: penalized(activation="relu"),),
        (lambda: penalized(keras.regularizers.L1L2(0.2, 0.3), activation="tanh"),),
        (
            lambda: layers.SeparableConv1D(3, 2, activity_regularizer="l1"),
            layers.BatchNormalization,
        ),
    ],
)
def test_split_regularizers_keeps_the_penalty_of_keras(chain):
    model = keras.Sequential([keras.Input((5, 4)), *(make() for make in chain)])
    clone = keras_qat.clone_model(model)
    x = np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")
    for each in (model, clone):
        each(x)
    assert len(clone.losses) == len(model.losses) == 1
    np.testing.assert_allclose(float(clone.losses[0]), float(model.losses[0]), rtol=1e-5)


PENALTY = {"activity_regularizer": "l2"}
LAYERS = {
    "batch_normalization": layers.BatchNormalization,
    "layer_normalization": layers.LayerNormalization,
    "relu": layers.ReLU,
    "activation": lambda **kwargs: layers.Activation("softplus", **kwargs),
    "softmax": layers.Softmax,
    "pooling": layers.MaxPooling1D,
    "einsum_dense": lambda **kwargs: layers.EinsumDense("abc,cd->abd", (None, 3), **kwargs),
    "dropout": lambda **kwargs: layers.Dropout(0.0, **kwargs),
    "own": lambda **kwargs: Halved(**kwargs),
}


class Halved(layers.Layer):
    """A layer that a user wrote."""

    def call(self, x):
        """Returns half of the input."""
        return x / 2


@pytest.mark.parametrize("name", LAYERS)
def test_split_regularizers_keeps_the_penalty_of_every_layer(name):
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.Dense(3), LAYERS[name](**PENALTY), layers.ReLU()]
    )
    x = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    assert losses_of(keras_qat.clone_model(model), x) == pytest.approx(losses_of(model, x), 1e-5)


@pytest.mark.parametrize("followers", [(), (layers.ReLU,)])
def test_clone_without_split_regularizers_keeps_the_penalty(followers):
    chain = [penalized(activation=None if followers else "relu"), *(make() for make in followers)]
    model = keras.Sequential([keras.Input((4,)), *chain])
    rewrites = [name for name in DEFAULT_REWRITES if name != "split_regularizers"]
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    clone = keras_qat.clone_model(model, rewrites=rewrites)
    assert losses_of(clone, x) == pytest.approx(losses_of(model, x), 1e-5)


def test_split_regularizers_keeps_the_penalty_of_every_output():
    x = keras.Input((3, 2))
    model = keras.Model(x, layers.LSTM(2, return_state=True, **PENALTY)(x))
    data = np.random.default_rng(0).normal(size=(8, 3, 2)).astype("float32")
    expected = losses_of(model, data)
    assert len(expected) == 3
    assert losses_of(keras_qat.clone_model(model), data) == pytest.approx(expected, 1e-5)


def losses_of(model, data):
    """The penalties of a batch, in ascending order."""
    model(data)
    return sorted(float(each) for each in model.losses)


def test_split_regularizers_makes_a_node_of_the_penalty():
    x = keras.Input((4,))
    graph = applied(split_regularizers, keras.Model(x, penalized()(x)))
    assert chains(graph) == {"layer": ["layer"], "layer_regularizer": ["layer_regularizer"]}


def test_split_regularizers_of_a_shared_layer_shares_the_penalty():
    x = keras.Input((4,))
    layer = penalized()
    model = keras.Model(x, layer(layer(x)))
    nodes = list(applied(split_regularizers, model).nodes.values())[1:]
    assert nodes[1].head is nodes[3].head
    clone, data = keras_qat.clone_model(model), np.eye(4, dtype="float32")
    for each in (model, clone):
        each(data)
    np.testing.assert_allclose([float(x) for x in clone.losses], [float(x) for x in model.losses])


def test_split_regularizers_refuses_other_kinds():
    x = keras.Input((4,))
    layer = penalized(keras.regularizers.OrthogonalRegularizer())
    with pytest.raises(UnsupportedLayerError, match="'layer'.*Orthogonal.* To fix it: "):
        keras_qat.clone_model(keras.Model(x, layer(x)))
