"""pad_maxima: paddings of minus infinity before max poolings."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.pad_maxima import pad_maxima
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.passes.graphs import applied, maximum_difference

DATA = np.random.default_rng(0).normal(size=(8, 7, 6, 3)).astype("float32")


def model_of(widths, pool):
    x = keras.Input(DATA.shape[1:], name="x")
    padded = ops.pad(x, ((0, 0), *widths, (0, 0)), constant_values=float("-inf"))
    return keras.Model(x, pool(padded))


@pytest.mark.parametrize(
    ("widths", "pool"),
    [
        (((1, 1), (1, 1)), lambda x: layers.MaxPooling2D(3, 2)(x)),
        (((0, 1), (1, 0)), lambda x: layers.MaxPooling2D(2, 1)(x)),
        (((2, 2), (0, 1)), lambda x: ops.max_pool(x, (4, 3), 1)),
    ],
)
def test_pad_maxima_keeps_function_and_exactness(widths, pool):
    model = model_of(widths, pool)
    graph = applied(pad_maxima, model)
    assert maximum_difference(graph, model, DATA) == 0
    assert_equals_litert(Prepared(Case("padded", (), lambda: model_of(widths, pool))))


@pytest.mark.parametrize(
    ("widths", "pool"),
    [
        (((2, 2), (1, 1)), lambda x: layers.MaxPooling2D(3, 2)(x)),
        (((1, 1), (1, 1)), lambda x: layers.AveragePooling2D(3)(ops.maximum(x, -9.0))),
        (((1, 1), (1, 1)), lambda x: x),
    ],
)
def test_pad_maxima_leaves_other_paddings(widths, pool):
    model = model_of(widths, pool)
    with pytest.raises(UnsupportedLayerError, match="not a finite number"):
        keras_qat.quantize_model(model)
