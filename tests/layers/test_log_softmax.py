"""Log-softmax: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QLogSoftmax
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import quantized_with
from tests.models import called

Activation, Dense = keras.layers.Activation, keras.layers.Dense

CASES = [
    Case(
        "log_softmax",
        (QLogSoftmax,),
        together(
            branches((3, 2, 5), [layer(Activation, "log_softmax")], prefix="image"),
            branches((4, 7), [operation(ops.log_softmax)], prefix="sequence"),
            branches((300,), [layer(Activation, "log_softmax")], prefix="vector"),
            branches((8,), [layer(Dense, 10, activation="log_softmax")], prefix="dense"),
        ),
    )
]


def test_log_softmax_by_hand():
    x = keras.Input((4,), name="input")
    model = keras.Model(x, Activation("log_softmax", name="y")(x))
    quantized = quantized_with(model, input=(-64.0, 63.5), y=(-255 / 64, 0.0))
    data = np.array([[0.0] * 4, [0.0, 0.0, 0.0, 1.0], [-60.0, 60.0, -60.0, -60.0]], "float32")
    # log(4) = 1.386 = 88.7 steps of 1/64; log(3 + e) = 1.744 = 111.6 steps
    expected = np.array([[-89] * 4, [-112, -112, -112, -48], [-255, 0, -255, -255]]) / 64
    np.testing.assert_array_equal(called(quantized, data), expected)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_log_softmax_noise_is_that_of_int8_tensors(classes):
    x = keras.Input((classes,))
    model = keras.Model(x, Activation("log_softmax")(x))
    data = np.random.default_rng(0).normal(0, 1, (256, classes)).astype("float32")
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    exact = np.array(model(data))
    integers, rounded = (
        10 * np.log10(np.sum(exact**2) / np.sum((exact - y) ** 2))
        for y in (called(quantized, data), np.array(quantized(data, training=True)))
    )
    assert integers > 30 and integers > rounded - 0.3, (integers, rounded)


def test_log_softmax_refuses_too_many_classes():
    x = keras.Input((2**16 + 1,))
    with pytest.raises(UnsupportedLayerError, match=r"exponentials.*'logs'.*65537 classes"):
        keras_qat.clone_model(keras.Model(x, Activation("log_softmax", name="logs")(x)))
