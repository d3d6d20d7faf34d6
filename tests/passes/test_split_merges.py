import keras
import numpy as np
import pytest
from keras import layers

from keras_qat.graph import Edge
from keras_qat.passes.split_merges import split_merges
from tests.passes.graphs import applied, maximum_difference


def inputs(count, shape=(3,)):
    return [keras.Input(shape, name=f"x{i}") for i in range(count)]


def test_split_merges_makes_three_sums_of_a_sum_of_four():
    x = inputs(4)
    model = keras.Model(x, layers.Add(name="sum")(x))
    graph = applied(split_merges, model)
    taken = {n.name: n.inputs for n in graph.nodes.values() if not n.is_input}
    assert taken == {
        "sum_partial": (Edge("x0"), Edge("x1")),
        "sum_partial_1": (Edge("sum_partial"), Edge("x2")),
        "sum": (Edge("sum_partial_1"), Edge("x3")),
    }
    assert graph.nodes["sum"].head is model.get_layer("sum")
    data = [np.array([[1, 2, 3]], "float32") * 10**i for i in range(4)]
    assert maximum_difference(graph, model, data) == 0


def test_split_merges_leaves_sums_of_two_and_other_layers():
    x = inputs(3)
    two = layers.Add(name="two")(x[:2])
    model = keras.Model(x, [two, layers.Concatenate(name="joined")(x)])
    graph = applied(split_merges, model)
    assert sorted(graph.nodes) == ["joined", "two", "x0", "x1", "x2"]
    assert graph.nodes["joined"].inputs == (Edge("x0"), Edge("x1"), Edge("x2"))


@pytest.mark.parametrize("cls", [layers.Maximum, layers.Minimum, layers.Multiply])
def test_split_merges_splits_other_merges_alike(cls):
    x = inputs(3)
    model = keras.Model(x, cls(name="merged")(x))
    graph = applied(split_merges, model)
    assert [type(n.head) for n in graph.nodes.values() if not n.is_input] == [cls, cls]
    data = [np.array([[1, 2, -3]], "float32") * (-2) ** i for i in range(3)]
    assert maximum_difference(graph, model, data) == 0


def test_split_merges_splits_each_call_of_a_shared_sum():
    x = inputs(4)
    add = layers.Add(name="sum")
    graph = applied(split_merges, keras.Model(x, [add(x[:3]), add(x[1:])]))
    first, second = graph.nodes["sum"], graph.nodes["sum_1"]
    assert first.head is second.head
    assert first.inputs[0] == Edge("sum_partial") and second.inputs[0] == Edge("sum_1_partial")
    assert {first.inputs[1], second.inputs[1]} == {Edge("x2"), Edge("x3")}


def test_split_merges_of_broadcast_shapes_keeps_the_function():
    x = [*inputs(2, (1,)), keras.Input((3,), name="x2")]
    model = keras.Model(x, layers.Add(name="sum")(x))
    data = [
        np.array([[2]], "float32"),
        np.array([[3]], "float32"),
        np.array([[1, 2, 3]], "float32"),
    ]
    graph = applied(split_merges, model)
    assert maximum_difference(graph, model, data) == 0
    assert graph.nodes["sum_partial"].shapes == ((None, 1),)
