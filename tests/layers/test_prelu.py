"""PRELU: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QLeakyReLU, QPReLU
from tests.layers.contract import (
    HALVES,
    Case,
    branches,
    exported,
    layer,
    operation,
    operators_of,
    quantized_with,
    together,
)

Activation, LeakyReLU, PReLU = keras.layers.Activation, keras.layers.LeakyReLU, keras.layers.PReLU

CASES = [
    Case(
        "prelu",
        (QPReLU,),
        together(
            branches(
                (3, 4, 2),
                *([layer(PReLU, shared_axes=axes)] for axes in (None, [1, 2], [1], [3], [1, 2, 3])),
                prefix="image",
            ),
            branches((4, 3), [PReLU], [layer(PReLU, shared_axes=[1])], prefix="sequence"),
            branches((5,), [PReLU], prefix="vector"),
        ),
    ),
    Case(
        "leaky_relu",
        (QLeakyReLU,),
        together(
            branches(
                (3, 4, 2),
                *([layer(LeakyReLU, slope)] for slope in (0.0, 1e-3, 0.3, 1.0, 4.0)),
                [layer(Activation, "leaky_relu")],
                [operation(lambda x: keras.ops.leaky_relu(x, -0.5))],
                prefix="image",
            ),
            branches((5,), [LeakyReLU], prefix="vector"),
        ),
    ),
]


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        # -1.5 and -0.5 steps of 0.5: ties go away from zero
        (0.5, [3.0, -1.0, -0.5, -32.0, 63.5]),
        (0.0, [3.0, 0.0, 0.0, 0.0, 63.5]),
        (2.0, [3.0, -3.0, -1.0, -64.0, 63.5]),
    ],
)
def test_leaky_relu_by_hand(slope, expected):
    x = keras.Input((5,), name="x")
    model = keras.Model(x, LeakyReLU(slope, name="y")(x))
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[3.0, -1.5, -0.5, -64.0, 63.5]], "float32")
    assert model.predict(values, verbose=0).tolist() == [expected]
    assert operators_of(exported(model)) == ["PRELU"]


def test_prelu_by_hand():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, PReLU(name="y")(x))
    model.get_layer("y").alpha.assign([1.0, -0.5, 0.0])
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]], "float32")
    # -0.5 is 64 of 127 steps, so that 1.0079 becomes 2 steps of 0.5.
    assert model.predict(values, verbose=0).tolist() == [[-2.0, 1.0, 0.0], [2.0, 2.0, 2.0]]
    assert operators_of(exported(model)) == ["PRELU"]


@pytest.mark.parametrize("make", [LeakyReLU, PReLU])
def test_five_dimensions_are_refused(make):
    x = keras.Input((2, 2, 2, 2))
    model = keras.Model(x, make(name="volume")(x))
    with pytest.raises(UnsupportedLayerError, match="volume.*at most 4 dimensions"):
        keras_qat.quantize_model(model)
