"""canonicalize moves constant arithmetic and ReLU before a reshape, to be fused there."""

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
def test_canonicalize_moves_constants_before_a_reshape(follow):
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
        lambda x: ops.reshape(x, (-1, 6, 5)) + bias(5),  # not the axes of the channels
        lambda x: ops.reshape(x, (-1, 5, 3, 2)) + bias(5, 3, 2),  # differs along another axis
        lambda x: ops.sigmoid(ops.reshape(x, (-1, 5, 3, 2))),  # no layer absorbs it
    ],
)
def test_canonicalize_leaves_other_operations_after_a_reshape(model):
    x = keras.Input((5, 6))
    assert kinds(applied(canonicalize, keras.Model(x, model(x))))[0] == "Reshape"


def test_canonicalize_leaves_a_reshape_with_other_consumers():
    x = keras.Input((5, 6))
    y = ops.reshape(x, (-1, 5, 3, 2))
    for outputs in ([y + 1.0, y], [y + 1.0, y * 2.0]):
        model = keras.Model(x, outputs)
        graph = applied(canonicalize, model)
        assert kinds(graph)[0] == "Reshape"
        assert maximum_difference(graph, model, normal((5, 6))) == 0


def test_canonicalize_over_a_reshape_keeps_the_function():
    x = keras.Input((5, 6))
    y = ops.relu(ops.reshape(keras.layers.Dense(6)(x), (-1, 5, 3, 2)) + bias(3, 2))
    model = keras.Model(x, y)
    clone, data = keras_qat.clone_model(model), normal((5, 6))
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert names(clone) == ["QReshape"]
