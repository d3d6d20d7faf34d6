"""FULLY_CONNECTED: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

import keras_qat
from keras_qat.layers import QDense
from tests.layers.cases import Case, branches, layer, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import constants_of, exported, operators_of
from tests.layers.test_convolution import all_alike, extreme
from tests.models import called

Dense, BatchNormalization, ReLU = (
    keras.layers.Dense,
    keras.layers.BatchNormalization,
    keras.layers.ReLU,
)


def constant_outputs(model, rng):
    """Sets kernels to zero: outputs are equal on all data, and all zero after a ReLU."""
    del rng
    for name, bias in (("b0_0", 3.0), ("b1_0", -2.0), ("b2_0", 0.0)):
        kernel, biases = model.get_layer(name).weights
        kernel.assign(np.zeros(kernel.shape))
        biases.assign(np.full(biases.shape, bias))


CASES = [
    Case(
        "dense",
        (QDense,),
        together(
            branches(
                (11,),
                [layer(Dense, 4)],
                [layer(Dense, 4, activation="relu")],
                [layer(Dense, 1, use_bias=False)],
                [layer(Dense, 7), layer(ReLU, 6.0)],
            ),
            branches((4, 6), [layer(Dense, 4)], [layer(Dense, 4), ReLU], prefix="c"),
            branches((2, 3, 6), [layer(Dense, 3, activation="relu")], prefix="d"),
        ),
    ),
    Case(
        "dense_batch_normalization",
        (QDense,),
        together(
            branches(
                (6,),
                [layer(Dense, 4), BatchNormalization],
                [layer(Dense, 4, use_bias=False), layer(BatchNormalization, center=False), ReLU],
            ),
            branches(
                (4, 6), [layer(Dense, 4), layer(BatchNormalization, scale=False), ReLU], prefix="c"
            ),
        ),
        # The mean of the batch cancels the bias.
        no_gradient=("/bias",),
    ),
    Case(
        "dense_constant",
        (QDense,),
        branches((5,), [layer(Dense, 3)], [layer(Dense, 3, activation="relu")], [layer(Dense, 2)]),
        prepare=constant_outputs,
        # These weights are before a ReLU whose inputs are all negative.
        no_gradient=("b1_0/kernel", "b1_0/bias"),
    ),
    Case(
        "dense_long_sums",
        (QDense,),
        branches((2000,), [layer(Dense, 4)], [layer(Dense, 4, use_bias=False)]),
        prepare=extreme,
        data=all_alike,
    ),
]


def dense_of(kernel, bias):
    """Makes a dense layer with given weights."""
    kernel = np.array(kernel, "float32")
    dense = Dense(kernel.shape[1], name="dense")
    model = keras.Sequential([keras.Input((kernel.shape[0],), name="input"), dense])
    dense.set_weights([kernel, np.array(bias, "float32")])
    return model


def test_dense_by_hand():
    model = dense_of([[1.27, 0.0], [-0.5, 1.27]], [0.25, 0.0])
    quantized = quantized_with(model, input=HALVES, dense=HALVES)
    constants = constants_of(exported(quantized))
    kernel, scale = constants["dense/kernel"]
    assert kernel.tolist() == [[127, -50], [0, 127]]  # one row for each unit
    assert scale.tolist() == [np.float32(0.01)] * 2
    assert constants["dense/bias"][0].tolist() == [50, 0]
    # (4 * 127 - 6 * 50 + 50) * 0.01 = 2.58 and 6 * 127 * 0.01 = 7.62 steps of 0.5
    assert called(quantized, np.array([[2.0, 3.0]], "float32")).tolist() == [[1.5, 4.0]]


def test_dense_long_sum_is_exact_to_one_unit():
    """1999 products of 255 * 127 and one of 255 * 1: float32 cannot represent the last units."""
    kernel = np.ones((2000, 1))
    kernel[0] = 1 / 127
    total = 1999 * 255 * 127 + 255
    model = dense_of(kernel, [-total * 0.5 / 127])
    step = 0.5 / 127  # one unit of the accumulator
    ranges = {"input": (0.0, 127.5), "dense": (-128 * step, 127 * step)}
    quantized = quantized_with(model, **ranges)
    bias = int(constants_of(exported(quantized))["dense/bias"][0][0])
    x = np.full((3, 2000), 127.5, "float32")
    x[1, 0] = 127.0  # one unit less
    x[2, 0] = 121.5
    q = np.rint(called(quantized, x).ravel() / step).tolist()
    assert abs(total + bias) < 10  # the rounding error of the bias in float32
    assert q == [total + bias, total + bias - 1, total + bias - 12]


def test_dense_activation_that_cannot_be_fused_is_an_operator():
    model = keras.Sequential([keras.Input((3,)), Dense(2, activation="softmax", name="head")])
    quantized = keras_qat.quantize_model(model, calibration_data=np.eye(3, dtype="float32"))
    assert operators_of(exported(quantized)) == ["FULLY_CONNECTED", "SOFTMAX"]
