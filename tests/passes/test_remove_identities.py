import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_qat.graph import Edge
from keras_qat.passes.remove_identities import remove_identities
from tests.passes.graphs import applied, chains, maximum_difference


class Doubled(layers.Layer):
    """A layer of the user's own, with a `rate` that is not one of dropout."""

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
def test_what_returns_its_input_is_removed(layer):
    model = between_dense_layers(layer)
    graph = applied(remove_identities, model)
    assert list(graph.nodes) == ["x", "first", "last"]
    assert maximum_difference(graph, model, np.eye(3, dtype="float32")) == 0


@pytest.mark.parametrize("layer", [layers.SpatialDropout1D(0.0), layers.SpatialDropout2D(0.0)])
def test_dropout_of_maps_is_removed_too(layer):
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
def test_what_does_something_stays(layer):
    assert "kept" in applied(remove_identities, between_dense_layers(layer)).nodes


def test_a_chain_of_identities_is_removed_whole():
    between = layers.Identity(), layers.Dropout(0), layers.Activation("linear")
    graph = applied(remove_identities, between_dense_layers(*between))
    assert graph.nodes["last"].inputs == (Edge("first"),)


def test_an_identity_may_be_the_output_or_stand_behind_the_input():
    x = keras.Input((3,), name="x")
    y = layers.Dense(3, name="d")(layers.Identity(name="front")(x))
    graph = applied(remove_identities, keras.Model(x, [layers.Identity(name="back")(y), y]))
    assert chains(graph) == {"d": ["d"]}
    assert graph.outputs == [Edge("d"), Edge("d")]


def test_a_model_of_an_identity_returns_its_input():
    x = keras.Input((3,), name="x")
    assert applied(remove_identities, keras.Model(x, layers.Identity()(x))).outputs == Edge("x")


def test_the_gradient_stays_stopped():
    graph = applied(remove_identities, between_dense_layers(ops.stop_gradient))
    assert len(graph.nodes) == 4


def test_casts_of_an_integer_input_are_removed():
    x = keras.Input((3,), name="x", dtype="uint8")
    y = layers.Dense(2, name="last")(ops.cast(x, "float32") - ops.cast(x, "float16"))
    graph = applied(remove_identities, keras.Model(x, y))
    assert [type(node.head).__name__ for node in graph.nodes.values()][1:] == ["Subtract", "Dense"]


def test_casts_between_floating_types_are_removed():
    model = between_dense_layers(lambda x: ops.cast(ops.cast(x, "float16"), "float32"))
    assert list(applied(remove_identities, model).nodes) == ["x", "first", "last"]


def test_cast_of_ids_that_are_looked_up_too_stays():
    x = keras.Input((3,), name="x", dtype="int32")
    model = keras.Model(x, [layers.Embedding(4, 2)(x), ops.cast(x, "float32")])
    kinds = {type(node.head).__name__ for node in applied(remove_identities, model).nodes.values()}
    assert kinds == {"InputLayer", "Embedding", "Cast"}
