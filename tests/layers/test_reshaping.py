"""RESHAPE and PAD: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QFlatten, QReshape, QZeroPadding2D
from tests.layers.contract import Case, branches, exported, layer, operators_of, quantized_with

Reshape, ZeroPadding2D = keras.layers.Reshape, keras.layers.ZeroPadding2D

CASES = [
    Case(
        "flatten",
        (QFlatten,),
        branches((3, 4, 2), [keras.layers.Flatten], [layer(Reshape, (4, 6)), keras.layers.Flatten]),
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
        ),
        steps=0,
    ),
    Case(
        "zero_padding2d",
        (QZeroPadding2D,),
        branches(
            (3, 4, 2),
            [layer(ZeroPadding2D, 1)],
            [layer(ZeroPadding2D, (2, 1))],
            [layer(ZeroPadding2D, ((0, 1), (2, 0)))],
        ),
        steps=0,
    ),
]


def test_padding_is_zero_wherever_the_zero_point_lies():
    model = keras.Sequential(
        [keras.Input((1, 2, 1), name="input"), ZeroPadding2D(((1, 0), (0, 2)))]
    )
    quantized = quantized_with(model, input=(-1.0, 126.5))
    y = quantized.predict(np.array([3.0, -1.0], "float32").reshape(1, 1, 2, 1), verbose=0)
    assert y[0, :, :, 0].tolist() == [[0.0, 0.0, 0.0, 0.0], [3.0, -1.0, 0.0, 0.0]]


def test_reshaping_keeps_the_order():
    model = keras.Sequential([keras.Input((2, 3), name="input"), Reshape((3, 2))])
    quantized = quantized_with(model, input=(-64.0, 63.5))
    x = np.arange(6, dtype="float32").reshape(1, 2, 3)
    assert quantized.predict(x, verbose=0).tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert operators_of(exported(quantized)) == ["RESHAPE"]


def test_channels_first_is_refused():
    model = keras.Sequential(
        [keras.Input((1, 4, 4)), ZeroPadding2D(1, data_format="channels_first", name="nchw")]
    )
    with pytest.raises(UnsupportedLayerError, match="nchw.*channels_last"):
        keras_qat.quantize_model(model)
