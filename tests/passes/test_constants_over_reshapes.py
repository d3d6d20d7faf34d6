"""Constant arithmetic and ReLU move before reshapes, where a dense layer takes them up."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.passes.canonicalize import canonicalize
from tests.passes.customs import names, normal
from tests.passes.graphs import applied, maximum_difference


def bias(*shape):
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def kinds(graph):
    return [type(node.head).__name__ for node in graph.nodes.values() if not node.is_input]


@pytest.mark.parametrize(
    "follow",
    [
        lambda x: x + bias(3, 2),
        lambda x: ops.subtract(bias(1, 3, 2), x),
        lambda x: x * bias(2),
        lambda x: x / 2,
        ops.relu,
        keras.layers.ReLU(6.0),
    ],
)
def test_reshape_comes_last(follow):
    x = keras.Input((5, 6))
    model = keras.Model(x, follow(ops.reshape(x, (-1, 5, 3, 2))))
    graph = applied(canonicalize, model)
    assert kinds(graph)[-1] == "Reshape"
    assert maximum_difference(graph, model, normal((5, 6))) <= 1e-6
    assert [shape for node in graph.nodes.values() for shape in node.shapes] == [
        (None, 5, 6),
        (None, 5, 6),
        (None, 5, 3, 2),
    ]


@pytest.mark.parametrize(
    "model",
    [
        lambda x: ops.reshape(x, (-1, 6, 5)) + bias(5),  # other axes than those of the channels
        lambda x: ops.reshape(x, (-1, 5, 3, 2)) + bias(5, 3, 2),  # differs along another axis
        lambda x: ops.sigmoid(ops.reshape(x, (-1, 5, 3, 2))),  # nothing takes it up
    ],
)
def test_others_stay(model):
    x = keras.Input((5, 6))
    assert kinds(applied(canonicalize, keras.Model(x, model(x))))[0] == "Reshape"


def test_reshape_that_others_see_stays():
    x = keras.Input((5, 6))
    y = ops.reshape(x, (-1, 5, 3, 2))
    for outputs in ([y + 1.0, y], [y + 1.0, y * 2.0]):
        model = keras.Model(x, outputs)
        graph = applied(canonicalize, model)
        assert kinds(graph)[0] == "Reshape"
        assert maximum_difference(graph, model, normal((5, 6))) == 0


def test_the_function_is_kept():
    x = keras.Input((5, 6))
    y = ops.relu(ops.reshape(keras.layers.Dense(6)(x), (-1, 5, 3, 2)) + bias(3, 2))
    model = keras.Model(x, y)
    clone, data = keras_qat.clone_model(model), normal((5, 6))
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert names(clone) == ["QReshape"]
