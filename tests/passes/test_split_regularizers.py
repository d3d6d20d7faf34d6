"""split_regularizers: a penalty stays on the output of its layer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import UnsupportedLayerError
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
