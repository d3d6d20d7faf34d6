"""LOGISTIC: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

from keras_qat.layers import QMultiply, QSigmoid
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, Prepared, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

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
    Case(
        "swish",
        (QSigmoid, QMultiply),
        branches(
            (3, 4, 2),
            [layer(keras.layers.Activation, "swish")],
            [operation(keras.ops.silu)],
            [layer(keras.layers.Conv2D, 3, 1, activation="swish")],
        ),
    ),
]


def test_swish_is_a_sigmoid_and_a_product():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1, activation="swish")]
    )
    prepared = Prepared(Case("swish_file", (), lambda: model))
    assert operators_of(prepared.content) == ["CONV_2D", "LOGISTIC", "MUL"]


def test_layer_saved_without_a_choice_keeps_its_scale():
    config = QSigmoid(scheme="int8").get_config()
    del config["avoids_ties"]
    assert not QSigmoid.from_config(config).avoids_ties


def test_sigmoid_by_hand():
    x = keras.Input((5,), name="x")
    model = quantized_with(keras.Model(x, keras.layers.Activation("sigmoid")(x)), x=HALVES)
    values = np.array([[0.0, 1.0, -1.0, -20.0, 20.0]], "float32")
    # sigmoid(1) = 0.731059 is 187.15 steps of 1/256; there is no step for 1.
    expected = [128 / 256, 187 / 256, 69 / 256, 0.0, 255 / 256]
    assert called(model, values).tolist() == [expected]
    assert operators_of(exported(model)) == ["LOGISTIC"]
