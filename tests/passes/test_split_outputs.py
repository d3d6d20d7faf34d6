import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QStridedSlice
from keras_qat.passes.split_outputs import split_outputs
from tests.models import called
from tests.passes.graphs import applied, maximum_difference

X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")


def model_of(function):
    inputs = keras.Input(X.shape[1:])
    return keras.Model(inputs, function(inputs))


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: ops.split(x, 3, axis=-1), 3),
        (lambda x: ops.split(x, [1, 3], axis=1), 3),
        (lambda x: ops.array_split(x, 4, axis=2), 4),
        (lambda x: ops.unstack(x, axis=1), 4),
        (lambda x: ops.unstack(x, axis=-1), 6),
        (lambda x: ops.add(*ops.split(x, 2, axis=2)), 2),
    ],
)
def test_split_outputs_makes_a_slice_per_output(function, count):
    model = model_of(function)
    graph = applied(split_outputs, model)
    slices = [node for node in graph.nodes.values() if isinstance(node.head, QStridedSlice)]
    assert len(slices) == count
    assert all(len(node.shapes) == 1 for node in graph.nodes.values())
    assert maximum_difference(graph, model, X) == 0.0


def test_split_outputs_makes_no_unused_slice():
    model = model_of(lambda x: ops.split(x, 3, axis=-1)[1])
    (name,) = list(applied(split_outputs, model).nodes)[1:]
    assert name.startswith("split") and name.endswith("_1")


def test_split_over_the_batch_is_refused():
    inputs = keras.Input(batch_shape=(4, 2), name="input")
    model = keras.Model(inputs, ops.split(inputs, 2, axis=0))
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(model)


def test_split_outputs_of_a_quantized_model():
    model = model_of(lambda x: ops.unstack(x, axis=1)[::2])
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, X, verbose=0)
    first, third = called(quantized, X)
    assert np.max(np.abs(first - X[:, 0])) < 0.02
    assert np.max(np.abs(third - X[:, 2])) < 0.02
    (entry,) = quantized.rewrite_log
    (name,) = entry.layers_in
    assert entry.rewrite == "split_outputs"
    assert entry.layers_out == (f"{name}_0", f"{name}_2")
