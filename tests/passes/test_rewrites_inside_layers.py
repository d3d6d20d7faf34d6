"""`rewrites` applies to operations inside custom layers as to those outside."""

import itertools

import keras
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.quick import some_quick


@keras.saving.register_keras_serializable("tests")
class Wrapper(layers.Layer):
    """A custom layer that calls another layer."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


INNER = {
    "relu": lambda: layers.Conv2D(4, 3, activation="relu", name="inner"),
    "softplus": lambda: layers.Conv2D(4, 3, activation="softplus", name="inner"),
    "separable": lambda: layers.SeparableConv2D(4, 3, name="inner"),
    "penalty": lambda: layers.Conv2D(4, 3, activity_regularizer="l2", name="inner"),
    "drop-in": lambda: keras_qat.layers.QConv2D(4, 3, activation="silu", name="inner"),
    "nested": lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="tanh")], name="inner"
    ),
}
OPENING = ("inline_models", "open_drop_ins", "split_separables", "split_regularizers")
CHOICES = [
    ["open_layers", *names, *split]
    for count in range(len(OPENING) + 1)
    for names in itertools.combinations(OPENING, count)
    for split in ((), ("split_activations",))
]


def outcome(layer, rewrites):
    """Returns the classes of the layers of the clone, or the missing rewrite."""
    x = keras.Input((8, 8, 3))
    try:
        clone = keras_qat.clone_model(keras.Model(x, layer(x)), rewrites=rewrites)
    except UnsupportedLayerError as error:
        return str(error).partition(" Layer:")[0]
    return [type(each).__name__ for each in clone.layers[1:]]


@pytest.mark.parametrize("name", some_quick(INNER, 1, 3, 5))
def test_rewrites_mean_the_same_inside_a_layer_and_outside(name):
    found = set()
    for rewrites in CHOICES:
        outside = outcome(INNER[name](), rewrites)
        assert outcome(Wrapper(INNER[name](), name="outer"), rewrites) == outside, rewrites
        found.add(str(outside))
    assert len(found) > 1 or name == "separable"


def test_drop_bias_reaches_layers_inside_others():
    x = keras.Input((8, 8, 3))
    inner = layers.Conv2D(4, 3, bias_initializer="ones", activation="relu", name="inner")
    model = keras.Model(x, Wrapper(inner, name="outer")(x))
    clone = keras_qat.clone_model(model, rewrites=[*keras_qat.DEFAULT_REWRITES, "drop_bias"])
    assert [weight.path for weight in clone.weights] == ["outer_inner/kernel"]
    assert "drop_bias" in [rewrite.rewrite for rewrite in clone.rewrite_log]
