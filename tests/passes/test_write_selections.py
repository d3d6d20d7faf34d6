"""write_selections: selections of numbers become booleans, masks of scores and arithmetic."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_qat.passes.write_selections import write_selections
from tests.models import called
from tests.passes.customs import assert_exact, names, normal
from tests.passes.graphs import applied, maximum_difference

SHAPE = (5, 6)


def is_large(x):
    return ops.greater(x, 0.5)


def number(x):
    return ops.cast(is_large(x), "float32")


DECIDED = {
    "cast_to_booleans": lambda x: ops.where(ops.where(is_large(x), 0.0, -1e9) != 0, x, 0.5 * x),
    "opposite": lambda x: ops.where(ops.where(is_large(x), 1.0, 2.0) > 1.5, x, 0.5 * x),
    "always": lambda x: ops.where(ops.where(is_large(x), 1.0, 2.0) > 0.5, x, 0.5 * x),
    "never": lambda x: ops.where(ops.where(is_large(x), 1.0, 2.0) > 2.0, x, 0.5 * x),
    "of_arithmetic": lambda x: ops.where(2.0 - number(x) * 3.0 < 0, x, 0.5 * x),
}
MASKED = {
    "selected": lambda x: ops.softmax(x + ops.where(is_large(x), 0.0, -1e9)),
    "opposite": lambda x: layers.Softmax()(ops.where(is_large(x), -1e9, 0.0) + x),
    "arithmetic": lambda x: ops.softmax(layers.Add()([x, (1.0 - number(x)) * -1e9])),
    "difference": lambda x: ops.softmax(x + (number(x) - 1.0) / 1e-9),
}
NUMBERS = {
    "two": lambda x: x + ops.where(is_large(x), 2.0, -2.0),
    "one_and_zero": lambda x: x * ops.where(is_large(x), 1.0, 0.0),
    "compared": lambda x: x + ops.where(ops.where(is_large(x), 2.0, 1.0) > 1.5, 0.5, -0.5),
}
ALL = {
    f"{kind}_{name}": function
    for kind, functions in (("decided", DECIDED), ("masked", MASKED), ("numbers", NUMBERS))
    for name, function in functions.items()
}


def model_of(function):
    x = keras.Input(SHAPE)
    return keras.Model(x, function(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ALL)
def test_write_selections_keeps_function_and_exactness(name, tmp_path):
    model, data = model_of(ALL[name]), normal(SHAPE)
    graph = applied(write_selections, model)
    assert maximum_difference(graph, model, data) < 1e-6
    quantized = assert_exact(model, data, tmp_path)
    error = called(quantized, data) - called(model, data)
    # A value near 0.5 may be rounded to the other side of it.
    assert np.mean(np.abs(error) > 0.1) < 0.05


@pytest.mark.parametrize("name", DECIDED)
def test_write_selections_leaves_one_selection(name, tmp_path):
    quantized = assert_exact(model_of(DECIDED[name]), normal(SHAPE), tmp_path)
    assert names(quantized).count("QSelect") == 1
    assert "QNumber" not in names(quantized)


@pytest.mark.parametrize("name", MASKED)
def test_write_selections_masks_scores_by_selecting(name, tmp_path):
    quantized = assert_exact(model_of(MASKED[name]), normal(SHAPE), tmp_path)
    assert "QSelect" in names(quantized)
    assert not {"QAdd", "QNumber", "QBatchNormalization"} & set(names(quantized))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.relu(x + (number(x) - 1.0) * 1e5),  # not before a softmax
        lambda x: ops.softmax(x + (number(x) - 1.0) * 10.0),  # not far
        lambda x: ops.softmax(x + (number(x) - 2.0) * 1e5),  # never 0
    ],
)
def test_write_selections_leaves_other_arithmetic(function):
    graph = applied(write_selections, model_of(function))
    kinds = [type(node.head).__name__ for node in graph.nodes.values()]
    assert "Add" in kinds and "Where" not in kinds
