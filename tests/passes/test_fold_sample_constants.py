"""fold_sample_constants: constants that a layer returns for each sample."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_qat.passes.fold_sample_constants import fold_sample_constants
from keras_qat.passes.open_layers import open_layers
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, maximum_difference

DATA = np.random.default_rng(0).normal(size=(16, 4, 3)).astype("float32")


class Positions(layers.Layer):
    """Returns its table for each sample."""

    def build(self, input_shape):
        self.rows = self.add_weight(shape=input_shape[1:], initializer="normal", name="rows")
        super().build(input_shape)

    def call(self, x):
        return ops.broadcast_to(self.rows, ops.shape(x))


def summed(x):
    return layers.Add()([x, Positions()(x), ops.tanh(x)])


FUNCTIONS = {
    "sum": lambda x: x + Positions()(x),
    "layer": lambda x: layers.Add()([x, Positions()(x)]),
    "sum of three": summed,
    "sum of two constants": lambda x: layers.Add()([Positions()(x), x, Positions()(x)]),
    "product": lambda x: x * Positions()(x),
}


def model_of(function):
    x = keras.Input(DATA.shape[1:], name="x")
    return keras.Model(x, function(x))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_fold_sample_constants_keeps_function_and_exactness(function):
    model = model_of(function)
    graph = applied(lambda graph: fold_sample_constants(open_layers(graph)), model)
    assert not any("getitem" in name for name in graph.nodes)
    assert maximum_difference(graph, model, DATA) < 1e-6
    prepared = Prepared(Case("constants", (), lambda: model_of(function)))
    assert_equals_litert(prepared)


def test_fold_sample_constants_makes_one_operator():
    prepared = Prepared(Case("sum", (), lambda: model_of(FUNCTIONS["sum"])))
    assert operators_of(exported(prepared.quantized)) == ["ADD"]


def test_fold_sample_constants_leaves_a_tensor_that_an_operator_needs():
    def joined(x):
        return ops.concatenate([x, Positions()(x)], axis=-1)

    graph = applied(lambda graph: fold_sample_constants(open_layers(graph)), model_of(joined))
    assert any("getitem" in name for name in graph.nodes)


def test_fold_sample_constants_leaves_a_tensor_that_has_another_use():
    def twice(x):
        positions = Positions()(x)
        return ops.concatenate([x + positions, positions], axis=-1)

    graph = applied(lambda graph: fold_sample_constants(open_layers(graph)), model_of(twice))
    assert any("getitem" in name for name in graph.nodes)
    assert_equals_litert(Prepared(Case("twice", (), lambda: model_of(twice))))
