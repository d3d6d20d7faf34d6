import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_qat.graph import Edge
from keras_qat.passes.remove_identities import remove_identities
from tests.passes.graphs import applied, chains, maximum_difference


class Doubled(layers.Layer):
    """A custom layer with a `rate` that is not a dropout rate."""

    rate = 0

    def call(self, x):
        return 2 * x


def between_dense_layers(*between, shape=(3,)):
    x = keras.Input(shape, name="x")
    y = layers.Dense(3, name="first")(x)
    for layer in between:
        y = layer(y)
    return keras.Model(x, layers.Dense(2, name="last")(y))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Identity(),
        layers.Activation("linear"),
        layers.Activation(None),
        layers.Dropout(0),
        layers.GaussianDropout(0.0),
        layers.AlphaDropout(0.0),
        lambda x: ops.cast(x, "float32"),
        lambda x: layers.Concatenate()([x]),
        lambda x: ops.concatenate([x], axis=-1),
    ],
)
def test_remove_identities_removes_layers_that_return_their_input(layer):
    model = between_dense_layers(layer)
    graph = applied(remove_identities, model)
    assert list(graph.nodes) == ["x", "first", "last"]
    assert maximum_difference(graph, model, np.eye(3, dtype="float32")) == 0


@pytest.mark.parametrize("layer", [layers.SpatialDropout1D(0.0), layers.SpatialDropout2D(0.0)])
def test_remove_identities_removes_spatial_dropout(layer):
    shape = (4, 3) if isinstance(layer, layers.SpatialDropout1D) else (4, 4, 3)
    assert "last" in applied(remove_identities, between_dense_layers(layer, shape=shape)).nodes
    graph = applied(remove_identities, between_dense_layers(layer, shape=shape))
    assert list(graph.nodes) == ["x", "first", "last"]


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5, name="kept"),
        lambda x: layers.Concatenate(name="kept")([x, x]),
        layers.GaussianNoise(0.1, name="kept"),
        layers.ReLU(name="kept"),
        layers.Activation("relu", name="kept"),
        Doubled(name="kept"),
    ],
)
def test_remove_identities_leaves_layers_with_an_effect(layer):
    assert "kept" in applied(remove_identities, between_dense_layers(layer)).nodes


def test_remove_identities_removes_a_whole_chain():
    between = layers.Identity(), layers.Dropout(0), layers.Activation("linear")
    graph = applied(remove_identities, between_dense_layers(*between))
    assert graph.nodes["last"].inputs == (Edge("first"),)


def test_remove_identities_at_the_input_and_the_output():
    x = keras.Input((3,), name="x")
    y = layers.Dense(3, name="d")(layers.Identity(name="front")(x))
    graph = applied(remove_identities, keras.Model(x, [layers.Identity(name="back")(y), y]))
    assert chains(graph) == {"d": ["d"]}
    assert graph.outputs == [Edge("d"), Edge("d")]


def test_remove_identities_of_a_model_of_one_identity():
    x = keras.Input((3,), name="x")
    assert applied(remove_identities, keras.Model(x, layers.Identity()(x))).outputs == Edge("x")


def test_remove_identities_leaves_stop_gradient():
    graph = applied(remove_identities, between_dense_layers(ops.stop_gradient))
    assert len(graph.nodes) == 4


def test_remove_identities_removes_casts_of_an_integer_input():
    x = keras.Input((3,), name="x", dtype="uint8")
    y = layers.Dense(2, name="last")(ops.cast(x, "float32") - ops.cast(x, "float16"))
    graph = applied(remove_identities, keras.Model(x, y))
    assert [type(node.head).__name__ for node in graph.nodes.values()][1:] == ["Subtract", "Dense"]


def test_remove_identities_removes_casts_between_floating_types():
    model = between_dense_layers(lambda x: ops.cast(ops.cast(x, "float16"), "float32"))
    assert list(applied(remove_identities, model).nodes) == ["x", "first", "last"]


def test_remove_identities_leaves_a_cast_of_ids_with_a_lookup():
    x = keras.Input((3,), name="x", dtype="int32")
    model = keras.Model(x, [layers.Embedding(4, 2)(x), ops.cast(x, "float32")])
    kinds = {type(node.head).__name__ for node in applied(remove_identities, model).nodes.values()}
    assert kinds == {"InputLayer", "Embedding", "Cast"}
