"""ELU: cases of the contract, hand-computed numbers, policies and types."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QElu
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

CASES = [
    Case(
        "elu",
        (QElu,),
        branches(
            (3, 4, 2),
            [layer(layers.Activation, "elu")],
            [layers.ELU],
            [operation(keras.ops.elu)],
            [layer(layers.Activation, "celu")],
            [layer(layers.Conv2D, 3, 1, activation="elu")],
        ),
    ),
]


def test_elu_by_hand():
    x = keras.Input((5,), name="x")
    model = keras.Model(x, layers.Activation("elu", name="y")(x))
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[0.0, 1.5, -0.5, -1.5, -20.0]], "float32")
    # elu(-0.5) = -0.39, elu(-1.5) = -0.78, elu(-20) = -1, in steps of 0.5
    assert called(model, values).tolist() == [[0.0, 1.5, -0.5, -1.0, -1.0]]
    assert operators_of(exported(model)) == ["ELU"]


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        (keras.ops.elu, {}, ["ELU"]),
        (keras.ops.elu, {"scheme": "uint8"}, ["CAST", "GATHER"]),
        (keras.ops.elu, {"activations": "lookup"}, ["CAST", "ADD", "GATHER"]),
        (lambda x: keras.ops.elu(x, alpha=0.5), {}, ["CAST", "ADD", "GATHER"]),
        (keras.ops.celu, {}, ["ELU"]),
        (lambda x: keras.ops.celu(x, alpha=2.0), {}, ["CAST", "ADD", "GATHER"]),
        (keras.ops.selu, {}, ["CAST", "ADD", "GATHER"]),
    ],
)
def test_quantize_model_writes_elu_where_it_is_exact(function, options, expected):
    x = keras.Input((6,))
    data = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    model = keras.Model(x, function(x))
    quantized = keras_qat.quantize_model(model, calibration_data=data, **options)
    assert operators_of(exported(quantized)) == expected
