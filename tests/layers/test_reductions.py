"""MEAN, REDUCE_MAX, REDUCE_ANY and others: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QMean, QReduceAll, QReduceAny, QReduceMax, QReduceMin
from tests.layers.cases import Case, branches, operation, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called


def reduced(*functions):
    """Makes reductions over one, several and all axes but the batch, of tensors of all ranks."""

    def chains(*axes):
        arguments = [(axis, keepdims) for axis in axes for keepdims in (False, True)]
        return [
            [operation(lambda x, f=f, a=axis, k=keepdims: f(x, axis=a, keepdims=k))]
            for f, (axis, keepdims) in zip(functions * len(arguments), arguments, strict=False)
        ]

    return together(
        branches((5, 3, 4, 2), *chains(2, (1, 2, 3), (1, -1)), prefix="a"),
        branches((5, 3, 4), *chains(1, 2, -1, (1, 2), (2, 3), (1, 3), (-1, 1, 2)), prefix="b"),
        branches((7, 6), *chains(1, -1, [1, 2]), prefix="c"),
        branches((9,), *chains(1), prefix="d"),
    )


def booleans():
    """Selects by reductions of conditions, of real values and of integers."""
    x, y = keras.Input((5, 4)), keras.Input((6,))
    high, kept = x > 1.0, {"keepdims": True}
    conditions = [ops.any(high, axis=-1, **kept), ops.all(x > -1.0, axis=(1, 2), **kept)]
    conditions += [ops.all(high, axis=1, **kept), ops.any(ops.relu(x), axis=1, **kept)]
    outputs = [ops.where(each, x, 0.0) for each in conditions]
    found = ops.all(ops.argmax(x, axis=-1), axis=-1)
    # vela compiles no file with a boolean output.
    return keras.Model([x, y], [*outputs, ops.where(ops.expand_dims(found, 1), y, -1.0)])


CASES = [
    Case("mean", (QMean,), reduced(ops.mean)),
    Case("reduce_max", (QReduceMax,), reduced(ops.max, ops.amax), steps=0),
    Case("reduce_min", (QReduceMin,), reduced(ops.min, ops.amin), steps=0),
    Case("reduce_booleans", (QReduceAny, QReduceAll), booleans),
]


def test_reductions_by_hand():
    x = keras.Input((2, 2), name="input")
    mean = QMean([2], name="mean")(x)
    model = keras.Model(x, [mean, ops.max(x, axis=1), ops.min(x, axis=1, keepdims=True)])
    quantized = quantized_with(model, input=HALVES, mean=(-32.0, 31.75))
    means, maxima, minima = called(quantized, np.array([[[0.5, 1.0], [-3.0, 4.0]]]))
    assert means.tolist() == [[0.75, 0.5]]
    assert maxima.tolist() == [[0.5, 4.0]]
    assert minima.tolist() == [[[-3.0, 1.0]]]


@pytest.mark.parametrize("function", [ops.any, ops.all])
def test_reductions_of_booleans_equal_keras(function):
    x = keras.Input((2, 3), name="input")
    model = keras.Model(x, [function(x > 0.0, axis=-1), function(x > 0.0, axis=(1, 2))])
    quantized = quantized_with(model, input=HALVES)
    data = np.array([[[0.5, 1.0, 2.0], [-3.0, 4.0, 1.0]], [[-1.0] * 3, [-1.0] * 3]], "float32")
    pairs = zip(called(quantized, data), called(model, data), strict=True)
    for found, exact in pairs:
        np.testing.assert_array_equal(found, exact)
    assert operators_of(exported(quantized)).count(f"REDUCE_{function.__name__.upper()}") == 2


@pytest.mark.parametrize("axis", [None, 0, (0, 1), -3])
def test_max_over_the_batch_is_refused(axis):
    x = keras.Input((2, 2), name="input")
    model = keras.Model(x, ops.max(x, axis=axis))
    with pytest.raises(UnsupportedLayerError, match="batch.*'max"):
        keras_qat.quantize_model(model)


def test_max_with_an_initial_value_is_refused():
    x = keras.Input((2, 2), name="input")
    model = keras.Model(x, ops.max(x, axis=1, initial=0.0))
    with pytest.raises(UnsupportedLayerError, match="initial"):
        keras_qat.quantize_model(model)


def test_mean_over_an_unknown_size_is_refused():
    with pytest.raises(UnsupportedLayerError, match="not known.*'mean'"):
        QMean([1], name="mean").build((None, None, 4))
