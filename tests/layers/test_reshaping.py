"""RESHAPE: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QFlatten, QReshape
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Flatten, Reshape = keras.layers.Flatten, keras.layers.Reshape

CASES = [
    Case(
        "flatten",
        (QFlatten,),
        branches((3, 4, 2), [Flatten], [layer(Reshape, (4, 6)), Flatten]),
        steps=0,
    ),
    Case(
        "reshape",
        (QReshape,),
        branches(
            (3, 4, 2),
            [layer(Reshape, (2, 12))],
            [layer(Reshape, (-1, 3))],
            [layer(Reshape, (1, 1, 4, 6))],
            [operation(lambda x: ops.reshape(x, (-1, 8, 3)))],
            [operation(lambda x: ops.expand_dims(x, 1)), operation(ops.squeeze)],
            [operation(lambda x: ops.expand_dims(x, (2, -1)))],
            [layer(Reshape, (1, 24)), operation(lambda x: ops.squeeze(x, 1))],
            [
                operation(lambda x: ops.reshape(x, (-1, 4, 2))),
                operation(lambda x: ops.relu(x)),
                operation(lambda x: ops.reshape(x, (-1, 6, 4))),
            ],
        ),
        steps=0,
    ),
]


def test_reshape_keeps_the_order():
    model = keras.Sequential([keras.Input((2, 3), name="input"), Reshape((3, 2))])
    quantized = quantized_with(model, input=(-64.0, 63.5))
    x = np.arange(6, dtype="float32").reshape(1, 2, 3)
    assert called(quantized, x).tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert operators_of(exported(quantized)) == ["RESHAPE"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.expand_dims(x, 0),
        lambda x: ops.reshape(x, (-1, 5)),
        lambda x: ops.reshape(x, (2, -1, 4)),
    ],
)
def test_reshape_refuses_the_batch_axis(function):
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(model)


def test_reshape_merges_axes_into_the_batch():
    x = np.arange(12, dtype="float32").reshape(2, 2, 3)
    assert QReshape((3,))(x).numpy().tolist() == x.reshape(4, 3).tolist()
    assert QReshape((2, 3))(x.reshape(4, 3)).numpy().tolist() == x.tolist()
    assert QReshape((3,)).compute_output_shape((2, 2, 3)) == (4, 3)


@pytest.mark.parametrize("shape", [(-1, 4), (-1,)])
def test_check_batch_refuses_an_output_with_several_rows_for_a_sample(shape):
    x = keras.Input((6, 4), name="x")
    model = keras.Model(x, ops.reshape(ops.relu(x), shape))
    with pytest.raises(UnsupportedLayerError, match="rows for each sample"):
        keras_qat.quantize_model(model)


def test_squeeze_refuses_the_batch_axis():
    inputs = keras.Input(batch_shape=(1, 4))
    model = keras.Model(inputs, ops.squeeze(inputs, 0))
    with pytest.raises(UnsupportedLayerError, match="4 rows for each sample"):
        keras_qat.quantize_model(model)
