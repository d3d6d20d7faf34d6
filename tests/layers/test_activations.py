"""SOFTMAX, RELU and RELU6: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QReLU, QSoftmax
from tests.layers.cases import Case, branches, layer, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, integers_of, operators_of, run_litert
from tests.models import called

ReLU, Softmax, Activation = keras.layers.ReLU, keras.layers.Softmax, keras.layers.Activation

CASES = [
    Case(
        "softmax",
        (QSoftmax,),
        together(
            branches((10,), [Softmax]),
            branches((2, 3, 5), [Softmax], prefix="c"),
            branches((500,), [layer(Activation, "softmax")], prefix="d"),
        ),
    ),
    Case(
        "softmax_of_1000_classes",
        (QSoftmax,),
        branches((1000,), [Softmax]),
        # The reference kernel stops the process if the exponentials sum to 512 times the
        # largest or more.
        least_scale=2.0,
    ),
    Case(
        "relu",
        (QReLU,),
        branches((7, 6, 4), [ReLU], [layer(ReLU, 6.0)], [layer(Activation, "relu"), ReLU]),
    ),
]


def test_softmax_by_hand():
    model = keras.Sequential([keras.Input((4,), name="input"), Softmax()])
    quantized = quantized_with(model, input=HALVES)
    x = np.array(
        [[7.0, 7.0, 7.0, 7.0], [60.0, -60.0, -60.0, -60.0], [9.0, 9.0, -60.0, -60.0]], "float32"
    )
    # The largest value is 255 / 256: 1 has no integer.
    expected = [[0.25, 0.25, 0.25, 0.25], [255 / 256, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]
    assert called(quantized, x).tolist() == expected


def test_softmax_is_not_rounded_at_training():
    model = keras.Sequential([keras.Input((2,), name="input"), Softmax()])
    quantized = quantized_with(model, input=HALVES)
    y = quantized(np.array([[0.0, 12.0]], "float32"), training=True).numpy()
    assert 0 < y[0, 0] < 1 / 512


@pytest.mark.parametrize(
    ("most", "expected"), [(None, [0.0, 0.0, 1.5, 31.75]), (6.0, [0.0, 0.0, 1.5, 6.0])]
)
def test_relu_by_hand(most, expected):
    model = keras.Sequential([keras.Input((4,), name="input"), ReLU(most, name="relu")])
    quantized = quantized_with(model, input=HALVES, relu=(-32.0, 31.75))
    x = np.array([[-1.0, -60.0, 1.5, 60.0]], "float32")
    assert called(quantized, x).tolist() == [expected]
    assert operators_of(exported(quantized)) == ["ADD"]


@pytest.mark.parametrize("most", [None, 6.0])
def test_relu_of_distant_scales_is_the_reference_kernel(most):
    """Below a 256th of the input's scale, ADD is slow first, and then refused by the kernel."""
    model = keras.Sequential([keras.Input((4,), name="input"), ReLU(most, name="relu")])
    x = np.array([[-1000.0, -3.0, 4.0, 1000.0]], "float32")
    for largest, operator in ((1e-4, "RELU6" if most else "RELU"), (8.0, "ADD")):
        quantized = quantized_with(model, input=(-1000.0, 1000.0), relu=(0.0, largest))
        content = exported(quantized)
        assert operators_of(content) == [operator]
        tensors, (name,) = run_litert(content, [x])
        q, details = tensors[name]
        assert (integers_of(called(quantized, x), details) == q).all()


def test_relu_that_is_an_output_before_it_stays_an_operator():
    """The tensor before the activation is an output, so the activation cannot be fused."""
    x = keras.Input((3,))
    y = keras.layers.Dense(2)(x)
    model = keras.Model(x, [y, ReLU()(y)])
    quantized = keras_qat.quantize_model(model, calibration_data=np.eye(3, dtype="float32"))
    assert operators_of(exported(quantized)) == ["FULLY_CONNECTED", "ADD"]
