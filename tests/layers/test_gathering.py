"""GATHER: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QGather, QTile
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

layers = keras.layers

CASES = [
    Case(
        "gather",
        (QGather,),
        branches(
            (3, 4, 2),
            [operation(lambda x: ops.repeat(x, 3, axis=1))],
            [operation(lambda x: ops.repeat(x, [2, 0, 1, 3], axis=-2))],
            [operation(lambda x: ops.roll(x, 3, axis=2))],
            [operation(lambda x: ops.roll(x, -1, axis=-1))],
            [operation(lambda x: ops.take(x, [2, 0, 0, -1], axis=1))],
            [operation(lambda x: ops.take(x, np.array([[1, 0], [1, 1]]), axis=-1))],
            [operation(lambda x: ops.take(x, 2, axis=2))],
        ),
        steps=0,
    ),
    Case(
        "repeating_layers",
        (QGather,),
        together(
            branches((4, 3), [layer(layers.UpSampling1D, 3)]),
            branches((2, 3, 2, 2), [layer(layers.UpSampling3D, (1, 2, 3))], prefix="c"),
            branches((5,), [layer(layers.RepeatVector, 4)], prefix="d"),
        ),
        steps=0,
    ),
    Case(
        "tile",
        (QTile,),
        branches(
            (3, 1, 2),
            [operation(lambda x: ops.tile(x, (1, 2, 3, 1)))],
            [operation(lambda x: ops.tile(x, (4,)))],
            [operation(lambda x: ops.tile(x, 1))],
        ),
        steps=0,
    ),
]


def outcome(function, x):
    inputs = keras.Input(batch_shape=x.shape, name="input")
    quantized = quantized_with(keras.Model(inputs, function(inputs)), input=(-64.0, 63.5))
    return called(quantized, x).tolist(), operators_of(exported(quantized))


def test_repeat_tile_and_take_keep_the_order():
    x = np.array([[1.0, 2.0, 3.0]], "float32")
    assert outcome(lambda t: ops.repeat(t, 2, axis=1), x) == ([[1, 1, 2, 2, 3, 3]], ["GATHER"])
    assert outcome(lambda t: ops.tile(t, 2), x) == ([[1, 2, 3, 1, 2, 3]], ["GATHER"])
    assert outcome(lambda t: ops.take(t, [2, -3], axis=1), x) == ([[3, 1]], ["GATHER"])
    assert outcome(lambda t: ops.roll(t, 1, axis=1), x) == ([[3, 1, 2]], ["GATHER"])


def test_broadcast_to_of_a_fixed_batch():
    x = np.array([[[1.0], [2.0]]], "float32")
    y, operators = outcome(lambda t: ops.broadcast_to(t, (1, 2, 3)), x)
    assert y == [[[1, 1, 1], [2, 2, 2]]]
    assert operators == ["GATHER"]


def test_tile_gathers_along_each_axis_that_grows():
    x = np.array([[[1.0, 2.0]]], "float32")
    y, operators = outcome(lambda t: ops.tile(t, (1, 2, 2)), x)
    assert y == [[[1, 2, 1, 2], [1, 2, 1, 2]]]
    assert operators == ["GATHER", "GATHER"]
    assert outcome(lambda t: ops.tile(t, 1), x) == ([[[1, 2]]], ["RESHAPE"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.repeat(x, 2, axis=0), "batch axis"),
        (lambda x: ops.roll(x, 1, axis=-3), "batch axis"),
        (lambda x: ops.take(x, [0], axis=0), "batch axis"),
        (lambda x: ops.tile(x, (2, 1, 1)), "batch axis"),
        (lambda x: ops.tile(x, (2, 1, 1, 1)), "batch axis"),
        (lambda x: ops.repeat(x, 2), "one axis at a time"),
        (lambda x: ops.take(x, [0, 3], axis=1), "positions 0 to 3"),
    ],
)
def test_gather_refuses_these_operations(function, message):
    inputs = keras.Input((3, 2))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model)


def test_take_refuses_computed_positions():
    inputs = keras.Input((3, 2)), keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, ops.take(*inputs, axis=1))
    with pytest.raises(UnsupportedLayerError, match="constant integers"):
        keras_qat.quantize_model(model)
