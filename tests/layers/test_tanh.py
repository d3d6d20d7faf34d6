"""TANH: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

from keras_qat.layers import QTanh
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

CASES = [
    Case(
        "tanh",
        (QTanh,),
        branches(
            (3, 4, 2),
            [layer(keras.layers.Activation, "tanh")],
            [operation(keras.ops.tanh)],
            [layer(keras.layers.Conv2D, 3, 1, activation="tanh")],
        ),
    ),
]


def test_tanh_by_hand():
    x = keras.Input((5,), name="x")
    model = keras.Model(x, keras.layers.Activation("tanh", name="y")(x))
    model = quantized_with(model, x=HALVES)
    values = np.array([[0.0, 1.0, -1.0, -20.0, 20.0]], "float32")
    # tanh(1) = 0.761594 is 97.48 steps of 1/128; there is no step for 1.
    expected = [0.0, 97 / 128, -97 / 128, -1.0, 127 / 128]
    assert called(model, values).tolist() == [expected]
    assert operators_of(exported(model)) == ["TANH"]
