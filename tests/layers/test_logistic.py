"""LOGISTIC: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

from keras_qat.layers import QSigmoid
from tests.layers.contract import (
    HALVES,
    Case,
    branches,
    exported,
    layer,
    operation,
    operators_of,
    quantized_with,
)

CASES = [
    Case(
        "sigmoid",
        (QSigmoid,),
        branches(
            (3, 4, 2),
            [layer(keras.layers.Activation, "sigmoid")],
            [operation(keras.ops.sigmoid)],
            [layer(keras.layers.Conv2D, 3, 1, activation="sigmoid")],
        ),
    ),
]


def test_sigmoid_by_hand():
    x = keras.Input((5,), name="x")
    model = quantized_with(keras.Model(x, keras.layers.Activation("sigmoid")(x)), x=HALVES)
    values = np.array([[0.0, 1.0, -1.0, -20.0, 20.0]], "float32")
    # sigmoid(1) = 0.731059 is 187.15 steps of 1/256; there is no step for 1.
    expected = [128 / 256, 187 / 256, 69 / 256, 0.0, 255 / 256]
    assert model.predict(values, verbose=0).tolist() == [expected]
    assert operators_of(exported(model)) == ["LOGISTIC"]
