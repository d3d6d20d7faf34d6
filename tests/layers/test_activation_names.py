"""Each activation has one name in all spellings."""

import keras
import pytest

from keras_qat.graph import read_model
from keras_qat.layers.core.activation_names import activation_name, function_name

layers = keras.layers


def mine(x):
    return x


def relu(x):
    return x + 1.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, "linear"),
        (keras.activations.linear, "linear"),
        (keras.activations.relu, "relu"),
        (keras.activations.get("relu6"), "relu6"),
        (keras.activations.softmax, "softmax"),
        (mine, "custom"),
        (relu, "custom"),  # a function of the user with the name of one of Keras's
        (layers.ReLU(), "relu"),
        (layers.LeakyReLU(), "custom"),
    ],
)
def test_function_name(function, expected):
    assert function_name(function) == expected


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (layers.Activation("relu"), "relu"),
        (layers.Activation("relu6"), "relu6"),
        (layers.Activation("linear"), "linear"),
        (layers.Activation(relu), "custom"),
        (layers.ReLU(), "relu"),
        (layers.ReLU(6.0), "relu6"),
        (layers.ReLU(6), "relu6"),
        (layers.ReLU(4.0), None),
        (layers.ReLU(threshold=1.0), None),
        (layers.ReLU(negative_slope=0.1), None),
        (layers.Softmax(), "softmax"),
        (layers.Softmax(axis=1), None),
        (layers.Identity(), "linear"),
        (layers.Flatten(), None),
    ],
)
def test_activation_name_of_layers(operation, expected):
    assert activation_name(operation) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (keras.ops.relu, "relu"),
        (keras.ops.relu6, "relu6"),
        (keras.ops.softmax, "softmax"),
        (lambda x: keras.ops.softmax(x, axis=1), None),
        (keras.ops.abs, None),
    ],
)
def test_activation_name_of_operations(call, expected):
    x = keras.Input((3, 4))
    operation = list(read_model(keras.Model(x, call(x))).nodes.values())[-1].head
    assert activation_name(operation) == expected
