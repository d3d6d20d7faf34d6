"""STRIDED_SLICE: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QCenterCrop, QStridedSlice
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

layers = keras.layers
CenterCrop = layers.CenterCrop


def item(*key):
    return operation(lambda x: x[key])


ALL = slice(None)

CASES = [
    Case(
        "strided_slice",
        (QStridedSlice,),
        branches(
            (5, 6, 4),
            [item(ALL, slice(1, 3))],
            [item(ALL, slice(None, None, 2), slice(-4, -1, 3))],
            [item(ALL, slice(None, None, -1), slice(4, None, -2), slice(3, 0, -2))],
            [item(Ellipsis, 2)],
            [item(ALL, -2, ALL, slice(1, None))],
            [item(ALL, 3, Ellipsis, -1)],
            [item(ALL, None, slice(2), None, 1)],
            [item(Ellipsis, None)],
            [item(ALL, slice(None, None, -1), None)],
            [item(ALL, 0, None, slice(None, None, -1))],
            [item(slice(0, None), slice(-100, 100))],
            [operation(lambda x: ops.flip(x, (1, -1)))],
            [operation(lambda x: ops.flip(x, 2))],
            [layer(keras.layers.Reshape, (5, 3, 2, 4)), item(ALL, slice(2), slice(2), ALL, 1)],
        ),
        steps=0,
    ),
    Case(
        "cropping_layers",
        (QStridedSlice,),
        together(
            branches((6, 3), [layer(layers.Cropping1D, (1, 2))], [layer(layers.Cropping1D, 2)]),
            branches(
                (5, 6, 2),
                [layer(layers.Cropping2D, 1)],
                [layer(layers.Cropping2D, ((0, 1), (2, 0)))],
                prefix="c",
            ),
            branches((4, 5, 3, 2), [layer(layers.Cropping3D, (1, 2, 0))], prefix="d"),
        ),
        steps=0,
    ),
    Case(
        "center_crop",
        (QCenterCrop,),
        branches((5, 6, 2), [layer(CenterCrop, 2, 3)], [layer(CenterCrop, 5, 1)]),
        steps=0,
    ),
]


def sliced(function, x):
    inputs = keras.Input(x.shape[1:], batch_size=1, name="input")
    quantized = quantized_with(keras.Model(inputs, function(inputs)), input=(-64.0, 63.5))
    return called(quantized, x).tolist(), operators_of(exported(quantized))


def test_strided_slice_by_hand():
    x = np.arange(12, dtype="float32").reshape(1, 3, 4)
    assert sliced(lambda t: t[:, 1:, ::-2], x) == ([[[7, 5], [11, 9]]], ["STRIDED_SLICE"])
    assert sliced(lambda t: t[..., 1], x) == ([[1, 5, 9]], ["STRIDED_SLICE", "RESHAPE"])
    assert sliced(lambda t: t[:, None, :, :], x)[1] == ["RESHAPE"]


def test_ops_slice_of_a_fixed_batch():
    x = np.arange(12, dtype="float32").reshape(1, 3, 4)
    assert sliced(lambda t: ops.slice(t, (0, 1, 1), (1, 2, 2)), x)[0] == [[[5, 6], [9, 10]]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[1:, 0], "batch axis"),
        (lambda x: x[::2, ...], "batch axis"),
        (lambda x: x[0], "batch axis"),
        (lambda x: x[None, ...], "batch axis"),
        (ops.flip, "batch axis"),
        (lambda x: x[:, 3:3], "must select something"),
        (lambda x: x[:, True], "known when the model is made.*ops.take"),
    ],
)
def test_strided_slice_refuses_these_operations(function, message):
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (CenterCrop(5, 2, name="crop"), "crop.*resizes it instead"),
    ],
)
def test_cropping_refuses_these_arguments(crop, message):
    model = keras.Sequential([keras.Input((4, 4, 4)), crop])
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize("position", [4, -5])
def test_strided_slice_refuses_a_position_outside(position):
    with pytest.raises(UnsupportedLayerError, match="must select something"):
        QStridedSlice([position])(np.zeros((1, 4), "float32"))
