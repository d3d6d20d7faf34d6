import keras
import numpy as np
import pytest
from keras import ops

from keras_qat.graph import Edge
from keras_qat.passes.write_sums_as_means import write_sums_as_means
from tests.passes.graphs import applied, maximum_difference


def summed(**arguments):
    x = keras.Input((4, 5, 3), name="x")
    return keras.Model(x, ops.sum(x, **arguments))


def kinds(graph):
    return [type(node.head).__name__ for node in graph.nodes.values()]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("axis", "count"), [(1, 4), (-1, 3), ((1, 2), 20), ((3, -3), 12)])
def test_write_sums_as_means_makes_a_mean_times_the_count(axis, count, keepdims):
    model = summed(axis=axis, keepdims=keepdims)
    graph = applied(write_sums_as_means, model)
    assert kinds(graph) == ["InputLayer", "Mean", "Multiply"]
    (edge,) = graph.output_edges
    product = graph.nodes[edge.node]
    assert product.arguments[0] == (Edge(f"{edge.node}_mean"), count)
    data = np.random.default_rng(0).integers(-9, 9, (2, 4, 5, 3)).astype("float32")
    assert maximum_difference(graph, model, data) < 1e-4


@pytest.mark.parametrize("axis", [None, 0, (0, 1), -4])
def test_write_sums_as_means_leaves_sums_over_the_batch(axis):
    assert kinds(applied(write_sums_as_means, summed(axis=axis))) == ["InputLayer", "Sum"]


def test_write_sums_as_means_keeps_names_and_order():
    x = keras.Input((4, 5), name="x")
    total = ops.sum(ops.sum(x, axis=2), axis=1)
    graph = applied(write_sums_as_means, keras.Model(x, total))
    assert kinds(graph) == ["InputLayer", "Mean", "Multiply", "Mean", "Multiply"]
    names = list(graph.nodes)
    assert graph.nodes[names[3]].inputs == (Edge(names[2]),)
    data = np.arange(20, dtype="float32").reshape(1, 4, 5)
    assert maximum_difference(graph, keras.Model(x, total), data) < 1e-3
