"""BATCH_MATMUL: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QMatmul
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called


def products():
    """Makes products of three to five axes, of two tensors and of a tensor with itself."""
    a, b = keras.Input((5, 4)), keras.Input((4, 3))
    c, d = keras.Input((2, 5, 4)), keras.Input((2, 3, 4, 5))
    outputs = [ops.matmul(a, b), c @ ops.transpose(c, (0, 1, 3, 2))]
    outputs += [ops.matmul(d, ops.transpose(d, (0, 1, 2, 4, 3)))]
    return keras.Model([a, b, c, d], outputs)


def broadcasting():
    a, b = keras.Input((3, 5, 5)), keras.Input((1, 5, 4))
    return keras.Model([a, b], [a @ b, ops.transpose(b, (0, 1, 3, 2)) @ a])


def long_sums():
    """Makes sums of so many products that float32 does not hold them exactly."""
    a, b = keras.Input((3, 1500)), keras.Input((1500, 2))
    return keras.Model([a, b], a @ b)


def symmetric():
    """Makes products whose second tensor has a zero point of 0, which XNNPACK takes."""
    a, b = keras.Input((2, 24, 16)), keras.Input((2, 16, 12))
    return keras.Model([a, b], a @ ops.tanh(b))


CASES = [
    Case("matmul", (QMatmul,), products),
    Case("matmul_broadcasting", (QMatmul,), broadcasting),
    Case("matmul_long", (QMatmul,), long_sums),
    Case("matmul_symmetric", (QMatmul,), symmetric),
]


def test_matmul_by_hand():
    a, b = keras.Input((1, 2), name="a"), keras.Input((2, 2), name="b")
    product = QMatmul(name="product")([a, b])
    model = quantized_with(keras.Model([a, b], product), a=HALVES, b=HALVES, product=HALVES)
    x = [
        np.array([[[1.5, -2.0]]], "float32"),
        np.array([[[0.5, 30.0], [1.0, -20.0]]], "float32"),
    ]
    # 0.75 - 2 is -2.5 steps: the multiplier alone, without a shift, rounds ties up
    assert called(model, x).tolist() == [[[-1.0, 63.5]]]
    assert operators_of(exported(model)) == ["BATCH_MATMUL"]


def test_matmul_without_second_zero_point_matches_xnnpack(tmp_path):
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(8, *size)).astype("float32") for size in ((2, 24, 16), (2, 16, 12))]
    qat = keras_qat.quantize_model(symmetric(), calibration_data=data)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data, kernels="default", verbose=0)
    assert report.mismatches("default") == 0


@pytest.mark.parametrize(
    ("first", "second"), [((2, 5), (5,)), ((5, 2, 5), (2, 5)), ((1, 1, 1, 2, 5), (1, 1, 1, 5, 2))]
)
def test_matmul_refuses_other_ranks(first, second):
    with pytest.raises(UnsupportedLayerError, match="(?s)same number of axes.*product.*one rank"):
        QMatmul(name="product").build([(None, *first), (None, *second)])


def test_matmul_refuses_constant_matrices():
    x = keras.Input((2, 5, 4))
    model = keras.Model(x, ops.matmul(x, np.ones((2, 4, 3), "float32")))
    with pytest.raises(UnsupportedLayerError, match="(?s)constant matrices.*matmul"):
        keras_qat.quantize_model(model)
