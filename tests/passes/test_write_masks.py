"""write_masks: masks that are added to scores become minimums and selections."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_qat.passes.write_masks import write_masks
from tests.models import called
from tests.passes.customs import assert_exact, names, normal
from tests.passes.graphs import applied, maximum_difference

SHAPE = (5, 6)
KEPT = np.tri(*SHAPE, dtype="float32")
FAR = (KEPT - 1) * 1e9
MASKED = {
    "added": lambda x: ops.softmax(x + FAR),
    "added_on_the_left": lambda x: layers.Softmax()(ops.add((1 - KEPT) * -1e4, x)),
    "subtracted": lambda x: layers.Activation("softmax")(x - (1 - KEPT) * 1e9),
    "selected": lambda x: ops.softmax(ops.where(KEPT > 0, x, x - 1e9)),
    "selected_first": lambda x: ops.softmax(ops.where(KEPT < 1, x + -1e9, x)),
    "masked_softmax": lambda x: layers.Softmax()(x, mask=KEPT > 0),
    "masked_other_axis": lambda x: layers.Softmax(axis=1)(x, mask=KEPT > 0),
    "masked_two_axes": lambda x: layers.Softmax(axis=(1, 2))(x, mask=KEPT > 0),
    "masked_rows": lambda x: layers.Softmax()(x, mask=KEPT[:, :1] > KEPT[:, 2:3]),
}


def model_of(function):
    x = keras.Input(SHAPE)
    return keras.Model(x, function(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", MASKED)
def test_write_masks_is_exact(name, tmp_path):
    data = normal(SHAPE)
    model = model_of(MASKED[name])
    quantized = assert_exact(model, data, tmp_path)
    error = called(quantized, data) - called(model, data)
    assert np.max(np.abs(error)) < 0.03
    assert not {"QAdd", "QSubtract"} & set(names(quantized))


@pytest.mark.parametrize("name", ["added", "added_on_the_left", "subtracted", "selected"])
def test_write_masks_keeps_function(name):
    model = model_of(MASKED[name])
    graph = applied(write_masks, model)
    kinds = [type(node.head).__name__ for node in graph.nodes.values()]
    assert not {"Add", "Subtract"} & set(kinds)
    assert maximum_difference(graph, model, normal(SHAPE)) < 1e-6


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.relu(x + FAR),  # not before a softmax
        lambda x: ops.softmax(x + KEPT),  # not far
        lambda x: ops.softmax(x + FAR - 1.0),  # a value between both
        lambda x: ops.softmax(ops.subtract(FAR, x)),
        lambda x: ops.softmax(ops.where(KEPT > 0, x, 2.0 * x - 1e9)),
        lambda x: ops.softmax(ops.where(KEPT > 0, x, x - 1.0)),
    ],
)
def test_write_masks_leaves_other_arithmetic(function):
    graph = applied(write_masks, model_of(function))
    assert {"Add", "Subtract"} & {type(node.head).__name__ for node in graph.nodes.values()}
