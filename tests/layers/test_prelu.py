"""PRELU: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QPReLU
from tests.layers.cases import Case, branches, layer, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

PReLU = keras.layers.PReLU

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
]


def test_prelu_by_hand():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, PReLU(name="y")(x))
    model.get_layer("y").alpha.assign([1.0, -0.5, 0.0])
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]], "float32")
    # -0.5 is 64 of 127 steps, so the result is 1.0079, which is 2 steps of 0.5.
    assert called(model, values).tolist() == [[-2.0, 1.0, 0.0], [2.0, 2.0, 2.0]]
    assert operators_of(exported(model)) == ["PRELU"]


def test_prelu_refuses_five_dimensions():
    x = keras.Input((2, 2, 2, 2))
    model = keras.Model(x, PReLU(name="volume")(x))
    with pytest.raises(UnsupportedLayerError, match="volume.*at most 4 dimensions"):
        keras_qat.quantize_model(model)
