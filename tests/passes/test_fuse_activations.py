import keras
import pytest
from keras import layers, ops

from keras_qat.graph import Edge
from keras_qat.passes.fuse_activations import fuse_activations
from tests.passes.graphs import applied, chains

SHAPE = (4, 4, 3)
HEADS = {
    "convolution": lambda x: layers.Conv2D(3, 3, padding="same", name="head")(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, padding="same", name="head")(x),
    "dense": lambda x: layers.Dense(3, name="head")(x),
    "normalization": lambda x: layers.BatchNormalization(name="head")(x),
    "sum": lambda x: layers.Add(name="head")([x, x]),
}
FUSED = {
    "ReLU": layers.ReLU,
    "ReLU6": lambda **kwargs: layers.ReLU(max_value=6, **kwargs),
    "Activation": lambda **kwargs: layers.Activation("relu", **kwargs),
    "Activation relu6": lambda **kwargs: layers.Activation(keras.activations.relu6, **kwargs),
}
NOT_FUSED = {
    "ReLU with another maximum": lambda **kwargs: layers.ReLU(max_value=3, **kwargs),
    "ReLU with a slope": lambda **kwargs: layers.ReLU(negative_slope=0.1, **kwargs),
    "ReLU with a threshold": lambda **kwargs: layers.ReLU(threshold=1, **kwargs),
    "sigmoid": lambda **kwargs: layers.Activation("sigmoid", **kwargs),
    "softmax": layers.Softmax,
    "leaky": layers.LeakyReLU,
    "function of the user's own": lambda **kwargs: layers.Activation(lambda x: x, **kwargs),
}


def model_of(head, follower):
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, follower(HEADS[head](image)))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("follower", FUSED)
def test_fuse_activations_fuses_into_the_previous_layer(head, follower):
    graph = applied(fuse_activations, model_of(head, FUSED[follower](name="behind")))
    assert chains(graph) == {"head": ["head", "behind"]}
    assert graph.outputs == Edge("head")


@pytest.mark.parametrize("follower", NOT_FUSED)
def test_fuse_activations_leaves_activations_that_no_operator_fuses(follower):
    graph = applied(fuse_activations, model_of("convolution", NOT_FUSED[follower](name="behind")))
    assert chains(graph) == {"head": ["head"], "behind": ["behind"]}


@pytest.mark.parametrize("function", [ops.relu, ops.relu6])
def test_fuse_activations_fuses_operations(function):
    image = keras.Input(SHAPE, name="image")
    total = layers.Conv2D(3, 1, name="conv")(image) + image
    graph = applied(fuse_activations, keras.Model(image, function(total)))
    assert sorted(map(len, chains(graph).values())) == [1, 2]


@pytest.mark.parametrize(
    "layer", [layers.MaxPooling2D(name="head"), layers.Flatten(name="head"), layers.Softmax()]
)
def test_fuse_activations_leaves_layers_without_fused_activation(layer):
    image = keras.Input(SHAPE, name="image")
    graph = applied(fuse_activations, keras.Model(image, layers.ReLU(name="relu")(layer(image))))
    assert chains(graph) == {layer.name: [layer.name], "relu": ["relu"]}


def test_fuse_activations_leaves_a_tensor_with_other_uses():
    image = keras.Input(SHAPE, name="image")
    head = HEADS["convolution"](image)
    relu = layers.ReLU(name="relu")(head)
    for outputs in ([relu, head], layers.Add(name="sum")([relu, head])):
        graph = applied(fuse_activations, keras.Model(image, outputs))
        assert {"head", "relu"} <= set(chains(graph))


def test_fuse_activations_redirects_consumers_and_outputs():
    image = keras.Input(SHAPE, name="image")
    relu = layers.ReLU(name="relu")(HEADS["convolution"](image))
    total = layers.Add(name="sum")([relu, image])
    graph = applied(fuse_activations, keras.Model(image, {"a": relu, "b": total}))
    assert graph.nodes["sum"].inputs == (Edge("head"), Edge("image"))
    assert graph.outputs == {"a": Edge("head"), "b": Edge("sum")}


def test_fuse_activations_fuses_one_of_two_activations():
    image = keras.Input(SHAPE, name="image")
    y = layers.ReLU(6.0, name="six")(layers.ReLU(name="relu")(HEADS["convolution"](image)))
    graph = applied(fuse_activations, keras.Model(image, y))
    assert chains(graph) == {"head": ["head", "relu"], "six": ["six"]}


def shared_layer(first, second):
    image = keras.Input(SHAPE, name="image")
    conv = layers.Conv2D(3, 1, name="conv")
    return keras.Model(image, second(conv(first(conv(image)))))


def test_fuse_activations_fuses_a_shared_layer_with_equal_followers():
    relu = layers.ReLU(name="relu")
    graph = applied(fuse_activations, shared_layer(relu, relu))
    assert chains(graph) == {"conv": ["conv", "relu"], "conv_1": ["conv", "relu"]}


def test_fuse_activations_leaves_a_shared_layer_with_different_followers():
    model = shared_layer(layers.ReLU(name="relu"), layers.ReLU(6.0, name="six"))
    assert set(chains(applied(fuse_activations, model))) == {"conv", "relu", "conv_1", "six"}
    model = shared_layer(layers.ReLU(name="relu"), layers.Flatten(name="flat"))
    assert set(chains(applied(fuse_activations, model))) == {"conv", "relu", "conv_1", "flat"}
