import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.graph import Edge
from keras_qat.passes.split_activations import split_activations
from tests.passes.graphs import applied, chains


def behind_image(layer):
    image = keras.Input((4, 4, 3), name="image")
    return keras.Model(image, layer(image))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(2, 3, activation="relu", name="layer"),
        layers.DepthwiseConv2D(3, activation="relu", name="layer"),
        layers.Dense(2, activation="relu", name="layer"),
    ],
)
def test_split_activations_makes_a_node_of_the_activation(layer):
    graph = applied(split_activations, behind_image(layer))
    assert chains(graph) == {"layer": ["layer"], "layer_relu": ["layer_relu"]}
    linear, activation = graph.nodes["layer"], graph.nodes["layer_relu"]
    assert type(linear.head) is type(layer) and linear.head.name == layer.name
    assert linear.head.activation is keras.activations.linear
    assert [*map(id, linear.head.variables)] == [*map(id, layer.variables)]
    assert activation.head.activation is keras.activations.relu
    assert activation.inputs == (Edge("layer"),) and activation.shapes == linear.shapes
    assert graph.outputs == Edge("layer_relu")
    assert layer.activation is keras.activations.relu


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(2, 3, name="layer"),
        layers.Conv2D(2, 3, activation="linear", name="layer"),
        layers.Activation("relu", name="layer"),
        layers.ReLU(name="layer"),
        # No rule takes this layer, so the activation could not be fused into it.
        layers.ConvLSTM1D(2, 3, name="layer"),
    ],
)
def test_split_activations_leaves_linear_and_other_layers(layer):
    assert chains(applied(split_activations, behind_image(layer))) == {"layer": ["layer"]}


def test_split_activations_twice_splits_once():
    graph = applied(split_activations, behind_image(layers.Dense(2, "relu", name="layer")))
    assert chains(split_activations(graph).check()) == chains(graph)


def test_split_activations_of_a_shared_layer_shares_the_activation():
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    dense = layers.Dense(2, activation="relu6", name="d")
    graph = applied(split_activations, keras.Model([x, y], [dense(x), dense(y)]))
    assert chains(graph) == {
        "d": ["d"],
        "d_relu6": ["d_relu6"],
        "d_1": ["d"],
        "d_relu6_1": ["d_relu6"],
    }
    assert graph.nodes["d_relu6"].head is graph.nodes["d_relu6_1"].head
    assert set(graph.outputs) == {Edge("d_relu6"), Edge("d_relu6_1")}


def test_split_activations_redirects_all_consumers():
    x = keras.Input((3,), name="x")
    d = layers.Dense(3, activation="relu", name="d")(x)
    model = keras.Model(x, [layers.Add(name="sum")([d, x]), layers.Dense(2, name="e")(d)])
    graph = applied(split_activations, model)
    assert graph.nodes["sum"].inputs == (Edge("d_relu"), Edge("x"))
    assert graph.nodes["e"].inputs == (Edge("d_relu"),)


def test_split_activations_keeps_the_name_of_an_existing_layer():
    x = keras.Input((3,), name="x")
    y = layers.Dense(3, activation="relu", name="d")(x)
    graph = applied(split_activations, keras.Model(x, layers.Dense(2, name="d_relu")(y)))
    assert graph.nodes["d_relu"].head.units == 2
    assert chains(graph)["d_relu_1"] == ["d_relu"]


def test_split_activations_keeps_the_function():
    layer = layers.Dense(2, activation="softmax", name="layer")
    model = behind_image(layer)
    activation = applied(split_activations, model).nodes["layer_softmax"].head
    data = np.random.default_rng(0).random((2, 4, 4, 3), "float32")
    linear = keras.ops.matmul(data, layer.kernel) + layer.bias
    assert (np.asarray(activation(linear)) == np.asarray(model(data))).all()


class Residual(layers.Layer):
    """Adds to a tensor what another layer makes of it."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return x + self.inner(x)


def test_split_activations_keeps_a_layer_shared_inside_and_outside_of_another():
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, activation="relu", name="dense")
    model = keras.Model(x, Residual(dense, name="sum")(dense(x)))
    clone = keras_qat.clone_model(model)
    assert [layer.name for layer in clone.layers] == ["x", "dense", "sum"]
    assert len(clone.trainable_weights) == 2
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)


def test_strip_quantization_tells_an_argument_from_a_layer():
    """Only an activation that was an argument becomes an argument again."""
    apart = [layers.Dense(2, name="dense"), layers.Activation("relu", name="act")]
    for made in ([layers.Dense(2, activation="relu", name="dense")], apart):
        model = keras.Sequential([keras.Input((3,), name="x"), *made])
        plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
        assert [layer.name for layer in plain.layers[1:]] == [layer.name for layer in made]
        assert plain.layers[1].activation is made[0].activation
