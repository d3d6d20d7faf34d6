"""TRANSPOSE: cases of the contract, hand-computed numbers, errors."""

import importlib.metadata

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QTranspose
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of, run_litert, versions_of
from tests.models import called

Permute = keras.layers.Permute


def transposed(*axes):
    return operation(lambda x: ops.transpose(x, axes))


RUNTIME = tuple(map(int, importlib.metadata.version("ai-edge-litert").split(".")[:2]))

CASES = [
    Case(
        "transpose",
        (QTranspose,),
        branches(
            (3, 4, 2),
            [transposed(0, 3, 1, 2)],
            [transposed(0, 2, 1, 3), transposed(0, -1, 2, 1)],
            [operation(lambda x: ops.swapaxes(x, 1, -1))],
            [operation(lambda x: ops.moveaxis(x, -1, 1))],
            [operation(lambda x: ops.moveaxis(x, (1, 2), (3, 1)))],
            [layer(Permute, (2, 3, 1))],
            [layer(keras.layers.Reshape, (3, 2, 2, 2)), transposed(0, 4, 2, 1, 3)],
            [layer(keras.layers.Reshape, (3, 2, 1, 2, 2)), transposed(0, 5, 4, 2, 1, 3)],
        ),
        steps=0,
    ),
]


def test_transpose_by_hand():
    model = keras.Sequential([keras.Input((2, 3), name="input"), Permute((2, 1))])
    quantized = quantized_with(model, input=(-64.0, 63.5))
    x = np.arange(6, dtype="float32").reshape(1, 2, 3)
    assert called(quantized, x).tolist() == [[[0, 3], [1, 4], [2, 5]]]
    assert operators_of(exported(quantized)) == ["TRANSPOSE"]


@pytest.mark.parametrize(("rank", "version"), [(3, 2), (4, 2), (5, 4), (6, 6), (7, 8), (8, 8)])
def test_transpose_version_depends_on_the_number_of_axes(rank, version):
    axes = (0, *range(rank - 1, 0, -1))
    inputs = keras.Input((2,) * (rank - 1), batch_size=1, name="input")
    quantized = quantized_with(
        keras.Model(inputs, ops.transpose(inputs, axes)), input=(-128.0, 127.0)
    )
    content = exported(quantized)
    assert versions_of(content) == [("TRANSPOSE", version)]
    if version == 8 and RUNTIME < (2, 3):
        pytest.skip("this LiteRT has TRANSPOSE up to version 6")
    x = np.arange(2 ** (rank - 1), dtype="float32").reshape(1, *inputs.shape[1:]) - 64
    for kernels in ("BUILTIN_REF", "AUTO"):
        values, (name,) = run_litert(content, [x], kernels)
        np.testing.assert_array_equal(values[name][0], np.transpose(x, axes))


def test_transpose_refuses_nine_axes():
    inputs = keras.Input((2,) * 8)
    model = keras.Model(inputs, ops.swapaxes(inputs, 1, 2))
    with pytest.raises(UnsupportedLayerError, match="no more than eight axes"):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize(
    "function",
    [
        ops.transpose,
        lambda x: ops.transpose(x, (1, 0, 2)),
        lambda x: ops.swapaxes(x, 0, 1),
        lambda x: ops.moveaxis(x, 0, -1),
    ],
)
def test_transpose_refuses_the_batch_axis(function):
    inputs = keras.Input((2, 3))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(model)
