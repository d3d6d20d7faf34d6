"""GELU: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

from keras_qat.layers import QGelu
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

CASES = [
    Case(
        "gelu",
        (QGelu,),
        branches(
            (3, 4, 2),
            [layer(keras.layers.Activation, "gelu")],
            [operation(lambda x: keras.ops.gelu(x, approximate=True))],
            [layer(keras.layers.Conv2D, 3, 1, activation="gelu")],
        ),
    ),
]


def test_gelu_by_hand():
    x = keras.Input((5,), name="x")
    model = keras.Model(x, keras.layers.Activation("gelu", name="y")(x))
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[0.0, 1.0, -1.0, 4.0, -20.0]], "float32")
    # gelu(1) = 0.841, gelu(-1) = -0.159, gelu(4) = 3.9999, in steps of 0.5
    assert called(model, values).tolist() == [[0.0, 1.0, 0.0, 4.0, 0.0]]
    assert operators_of(exported(model)) == ["GELU"]
