"""fold_filled_tensors: tensors of zeros, of ones, and of another number."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.fold_filled_tensors import fold_filled_tensors
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, chains, maximum_difference

DATA = np.random.default_rng(0).normal(size=(16, 4, 3)).astype("float32")


def model_of(function):
    x = keras.Input(DATA.shape[1:], name="x")
    return keras.Model(x, function(x))


FOLDED = {
    "sum": lambda x: x + ops.ones_like(x),
    "product": lambda x: ops.full_like(x, 2.0) * x,
    "selection": lambda x: ops.where(x > ops.zeros_like(x), x, ops.full_like(x, -0.5)),
    "broadcast": lambda x: x[:, :1] + ops.ones_like(x),
    "comparison": lambda x: ops.where(ops.less(x, ops.ones_like(x)), x, 1.0),
}
KEPT = {
    "output": lambda x: [ops.zeros_like(x), x],
    "concatenation": lambda x: ops.concatenate([x, ops.ones_like(x)], axis=-1),
    "sum of both": lambda x: ops.ones_like(x) + ops.zeros_like(x),
    "only use": lambda x: layers.Dense(2)(ops.full_like(x, 3.0)),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("function", [*FOLDED.values(), *KEPT.values()], ids=[*FOLDED, *KEPT])
def test_fold_filled_tensors_keeps_function_and_exactness(function):
    model = model_of(function)
    graph = applied(fold_filled_tensors, model)
    assert not any("like" in name for chain in chains(graph).values() for name in chain)
    assert maximum_difference(graph, model, DATA) == 0
    prepared = Prepared(Case("filled", (), lambda: model_of(function)))
    assert_equals_litert(prepared)
    assert_equals_litert(prepared, "reference")


@pytest.mark.parametrize("function", FOLDED.values(), ids=FOLDED)
def test_fold_filled_tensors_leaves_one_operation_less(function):
    model = model_of(function)
    before, after = (
        chains(applied(lambda graph: graph, model)),
        chains(applied(fold_filled_tensors, model)),
    )
    assert len(after) < len(before)


def test_fold_filled_tensors_adds_zeros_without_an_operator():
    prepared = Prepared(Case("zeros", (), lambda: model_of(lambda x: x + ops.zeros_like(x))))
    assert operators_of(exported(prepared.quantized)) == []


def test_fold_filled_tensors_names_both_operations_in_the_log():
    model = model_of(lambda x: layers.Dense(2)(x + ops.ones_like(x)))
    log = keras_qat.clone_model(model).rewrite_log
    assert "ones_like" in str(log[0]) and "add" in str(log[0])


def test_fold_filled_tensors_leaves_ids():
    x = keras.Input((4,), dtype="int32", name="ids")
    model = keras.Model(x, layers.Embedding(5, 3)(ops.zeros_like(x)))
    with pytest.raises(UnsupportedLayerError, match="zeros_like"):
        keras_qat.quantize_model(model)
