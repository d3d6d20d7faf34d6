"""move_batch_first: parts of tensors whose batch is not the first axis."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.move_batch_first import move_batch_first
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.passes.graphs import applied, maximum_difference

DATA = np.random.default_rng(0).normal(size=(16, 5, 24)).astype("float32")


def moved(x):
    """Returns queries, keys and values, with the batch as second axis."""
    return ops.transpose(ops.reshape(x, (-1, 5, 3, 2, 4)), (2, 0, 3, 1, 4))


def squeezed(x):
    q, k, v = (ops.squeeze(part, 0) for part in ops.split(moved(x), 3, axis=0))
    return q * k + v


def unstacked(x):
    q, k, v = ops.unstack(moved(x), 3, axis=0)
    return ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))), v)


def indexed(x):
    y = moved(x)
    return y[0] * y[-1, :, 1:] + y[1, ...]


def of_other_axis(x):
    y = ops.moveaxis(ops.reshape(x, (-1, 5, 3, 8)), 2, 0)
    return ops.unstack(y, axis=2)[1][0]


def windows(x):
    """Merges the batch with another axis after it was moved, as attention in windows does."""
    y = ops.transpose(ops.reshape(x, (-1, 5, 3, 2, 4)), (2, 0, 3, 1, 4))
    q, k, v = ops.unstack(ops.reshape(y, (3, -1, 5, 4)), 3, axis=0)
    y = ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, 1, 2))), v)
    return ops.reshape(y, (-1, 2, 5, 4))


def windows_by_index(x):
    y = ops.transpose(ops.reshape(x, (-1, 5, 3, 2, 4)), (2, 0, 3, 1, 4))
    y = ops.reshape(y, (3, -1, 20))
    return ops.reshape(y[0] * y[1, :, :] + y[-1], (-1, 40))


WRITTEN = {
    "windows": windows,
    "windows_by_index": windows_by_index,
    "squeeze": squeezed,
    "unstack": unstacked,
    "index": indexed,
    "unused": lambda x: ops.unstack(moved(x), axis=0)[1],
    "other_axis": of_other_axis,
}


@pytest.mark.parametrize("function", WRITTEN.values(), ids=WRITTEN)
def test_move_batch_first_keeps_function_and_exactness(function):
    x = keras.Input(DATA.shape[1:])
    model = keras.Model(x, function(x))
    graph = applied(move_batch_first, model)
    assert all(node.shapes[0][0] is None for node in graph.nodes.values())
    assert maximum_difference(graph, model, DATA) < 1e-6
    assert_equals_litert(Prepared(Case("moved", (), lambda: model)))


def test_move_batch_first_leaves_other_operations():
    x = keras.Input(DATA.shape[1:])
    model = keras.Model(x, ops.relu(moved(x)))
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(model)
