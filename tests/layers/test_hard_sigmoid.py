"""Hard sigmoid and hard-swish as ADD and MUL: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_qat.layers import QHardSigmoid, QMultiply
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, Prepared, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Activation = keras.layers.Activation

CASES = [
    Case(
        "hard_sigmoid",
        (QHardSigmoid, QMultiply),
        branches(
            (3, 4, 2),
            [layer(Activation, "hard_sigmoid")],
            [layer(Activation, "hard_swish")],
            [operation(ops.hard_sigmoid)],
            [layer(keras.layers.Conv2D, 3, 1, activation="hard_swish")],
        ),
    ),
]


def test_hard_sigmoid_by_hand():
    x = keras.Input((5,), name="x")
    model = keras.Model(x, Activation("hard_sigmoid", name="y")(x))
    model = quantized_with(model, x=HALVES, y=(0.0, 255 / 256))
    values = np.array([[0.0, 1.0, -1.0, -30.0, 30.0]], "float32")
    # 4 is 169.33 steps of 6/254, and 169 of them are 0.665 or 170.33 steps of 1/256.
    expected = [128 / 256, 170 / 256, 86 / 256, 0.0, 255 / 256]
    assert called(model, values).tolist() == [expected]
    assert operators_of(exported(model)) == ["ADD", "MUL"]


@pytest.mark.parametrize(
    "function",
    [
        ops.hard_silu,
        lambda x: x * ops.relu6(x + 3) / 6,
        lambda x: x * (ops.relu6(x + 3.0) * (1.0 / 6.0)),
        lambda x: x * ops.clip(x / 6 + 0.5, 0, 1),
        lambda x: x * ops.hard_sigmoid(x),
    ],
)
def test_hard_swish_has_one_form_for_all_spellings(function):
    x = keras.Input((4, 4, 2))
    model = keras.Model(x, function(keras.layers.Conv2D(3, 1)(x)))
    content = Prepared(Case("spelling", (), lambda: model)).content
    assert operators_of(content) == ["CONV_2D", "ADD", "MUL", "MUL"]
