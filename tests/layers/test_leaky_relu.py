"""LEAKY_RELU, and PRELU in its place: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QLeakyReLU
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import HALVES, Prepared, assert_equals_litert, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Activation, LeakyReLU = keras.layers.Activation, keras.layers.LeakyReLU

CASES = [
    Case(
        "leaky_relu",
        (QLeakyReLU,),
        together(
            branches(
                (3, 4, 2),
                *([layer(LeakyReLU, slope)] for slope in (0.0, 1e-3, 0.3, 0.5, 1.0, 4.0)),
                [layer(Activation, "leaky_relu")],
                [operation(lambda x: keras.ops.leaky_relu(x, 0.05))],
                prefix="image",
            ),
            branches((5,), [LeakyReLU], prefix="vector"),
        ),
    ),
    Case(
        "leaky_relu_of_prelu",
        (QLeakyReLU,),
        branches((3, 4, 2), [operation(lambda x: keras.ops.leaky_relu(x, -0.5))]),
    ),
]


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        # -1.5 and -0.5 steps of 0.5: the kernel rounds ties up if it does not shift
        (0.5, [3.0, -0.5, 0.0, -32.0, 63.5]),
        (0.0, [3.0, 0.0, 0.0, 0.0, 63.5]),
        (2.0, [3.0, -3.0, -1.0, -64.0, 63.5]),
    ],
)
def test_leaky_relu_by_hand(slope, expected):
    x = keras.Input((5,), name="x")
    model = keras.Model(x, LeakyReLU(slope, name="y")(x))
    model = quantized_with(model, x=HALVES, y=HALVES)
    values = np.array([[3.0, -1.5, -0.5, -64.0, 63.5]], "float32")
    assert called(model, values).tolist() == [expected]
    assert operators_of(exported(model)) == ["LEAKY_RELU"]


def test_leaky_relu_takes_five_dimensions():
    x = keras.Input((2, 3, 2, 2))
    case = Case("volume", (QLeakyReLU,), lambda: keras.Model(x, LeakyReLU()(x)))
    assert assert_equals_litert(Prepared(case))


@pytest.mark.parametrize("name", ["leaky_relu", "tanh", "swish", "sigmoid"])
def test_lookup_policy_equals_litert(name, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=name)])
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x, activations="lookup")
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", x, verbose=0)
    assert report.exact
    forms = {"leaky_relu": ["PRELU"], "sigmoid": ["LOGISTIC"]}
    expected = ["FULLY_CONNECTED", *forms.get(name, ["CAST", "ADD", "GATHER"])]
    assert operators_of((tmp_path / "model.tflite").read_bytes()) == expected


def test_layer_saved_without_operator_stays_a_prelu():
    config = QLeakyReLU(0.1, scheme="int8").get_config()
    del config["operator"]
    assert QLeakyReLU.from_config(config).operator == "PRELU"
