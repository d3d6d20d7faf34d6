"""PAD, PADV2 and MIRROR_PAD: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QPad
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of, versions_of
from tests.models import called

layers = keras.layers
ZeroPadding2D = layers.ZeroPadding2D
WIDTHS = ((0, 0), (1, 0), (2, 1), (0, 1))


def padded(*args, **kwargs):
    return operation(lambda x: ops.pad(x, *args, **kwargs))


CASES = [
    Case(
        "zero_padding",
        (QPad,),
        together(
            branches(
                (3, 4, 2),
                [layer(ZeroPadding2D, 1)],
                [layer(ZeroPadding2D, (2, 1))],
                [layer(ZeroPadding2D, ((0, 1), (2, 0)))],
                [padded(WIDTHS)],
                [padded(WIDTHS, constant_values=0)],
            ),
            branches((5, 2), [layer(layers.ZeroPadding1D, (1, 2))], prefix="c"),
            branches((2, 3, 2, 2), [layer(layers.ZeroPadding3D, (1, 0, 2))], prefix="d"),
        ),
        steps=0,
    ),
    Case(
        "mirror_pad",
        (QPad,),
        branches(
            (3, 4, 2),
            [padded(WIDTHS, "reflect")],
            [padded(WIDTHS, "symmetric")],
            [layer(layers.Reshape, (3, 4, 2, 1)), padded((*WIDTHS, (0, 0)), "reflect")],
        ),
        steps=0,
    ),
    Case(
        "constant_padding",
        (QPad,),
        together(
            branches((3, 4, 2), [padded(WIDTHS, constant_values=0.7)]),
            branches((3, 4, 2), [padded(WIDTHS, constant_values=-9.0)], prefix="c"),
        ),
    ),
]


def test_zero_padding_is_zero_for_any_zero_point():
    model = keras.Sequential(
        [keras.Input((1, 2, 1), name="input"), ZeroPadding2D(((1, 0), (0, 2)))]
    )
    quantized = quantized_with(model, input=(-1.0, 126.5))
    y = called(quantized, np.array([3.0, -1.0], "float32").reshape(1, 1, 2, 1))
    assert y[0, :, :, 0].tolist() == [[0.0, 0.0, 0.0, 0.0], [3.0, -1.0, 0.0, 0.0]]
    assert operators_of(exported(quantized)) == ["PAD"]


def test_pad_range_covers_the_constant():
    inputs = keras.Input((2,), name="input")
    model = keras.Model(inputs, ops.pad(inputs, ((0, 0), (1, 0)), constant_values=127.0))
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, np.array([[-128.0, 3.4]], "float32"), verbose=0)
    y = called(quantized, np.array([[-128.0, 3.4]], "float32"))
    assert y.tolist() == [[127.0, -128.0, 3.0]]
    assert operators_of(exported(quantized)) == ["PADV2"]


@pytest.mark.parametrize(("value", "code"), [(0.0, "PAD"), (5.0, "PADV2")])
@pytest.mark.parametrize(("rank", "version"), [(2, 2), (4, 2), (5, 4)])
def test_pad_version_depends_on_the_number_of_axes(rank, version, value, code):
    inputs = keras.Input((2,) * (rank - 1), name="input")
    widths = [(0, 0)] * (rank - 1) + [(1, 0)]
    model = keras.Model(inputs, ops.pad(inputs, widths, constant_values=value))
    x = np.ones((1, *inputs.shape[1:]), "float32")
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, x, verbose=0)
    assert versions_of(exported(quantized)) == [(code, version)]


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_refuses_six_axes(mode):
    inputs = keras.Input((2,) * 5)
    model = keras.Model(inputs, ops.pad(inputs, [(0, 0)] * 5 + [(1, 0)], mode))
    with pytest.raises(UnsupportedLayerError, match="no more than five axes"):
        keras_qat.quantize_model(model)


def test_pad_mirrors_values():
    inputs = keras.Input((3,), name="input")
    outputs = [ops.pad(inputs, ((0, 0), (2, 1)), mode) for mode in ("reflect", "symmetric")]
    quantized = quantized_with(keras.Model(inputs, outputs), input=(-64.0, 63.5))
    reflected, symmetric = called(quantized, np.array([[1.0, 2.0, 3.0]], "float32"))
    assert reflected.tolist() == [[3, 2, 1, 2, 3, 2]]
    assert symmetric.tolist() == [[2, 1, 1, 2, 3, 3]]
    assert operators_of(exported(quantized)) == ["MIRROR_PAD"] * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.pad(x, 1), "batch axis"),
        (lambda x: ops.pad(x, ((1, 0), (0, 0))), "batch axis"),
        (lambda x: ops.pad(x, ((0, 0), (0, 1)), "edge"), "mode='edge'"),
        (lambda x: ops.pad(x, ((0, 0), (0, 1)), constant_values=-np.inf), "a finite number"),
        (lambda x: ops.pad(x, ((0, 0), (0, 1)), constant_values=x), "expected: a number"),
    ],
)
def test_pad_refuses_these_arguments(function, message):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match=f"(?i){message}"):
        keras_qat.quantize_model(model)
