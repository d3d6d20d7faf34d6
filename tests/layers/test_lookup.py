"""The 256-entry lookup: cases of the contract over all functions, hand-computed numbers."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.graph import read_model
from keras_qat.layers import QLookup
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Activation = keras.layers.Activation

ACTIVATIONS = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh",
    "tanh_shrink",
]


CASES = [
    Case(
        "lookup_activations",
        (QLookup,),
        branches((5, 3), *([layer(Activation, name)] for name in ACTIVATIONS)),
        # Exponentials of large numbers overflow, so they have no finite range.
        greatest_scale=5.0,
        activations="lookup",
    ),
    Case(
        "lookup_layers",
        (QLookup,),
        branches(
            (5, 3),
            [layer(keras.layers.ELU, alpha=0.5)],
            [layer(keras.layers.LeakyReLU, negative_slope=0.1)],
            [layer(keras.layers.ReLU, 4.0, 0.1, 0.2)],
            [operation(lambda x: keras.ops.threshold(x, 0.2, -0.4))],
            [operation(keras.ops.square)],
            [operation(keras.ops.abs)],
            [operation(keras.ops.negative)],
            [operation(lambda x: keras.ops.clip(x, -0.3, 0.5))],
            [operation(keras.ops.erf)],
            [operation(lambda x: keras.ops.gelu(x, approximate=True))],
            [operation(keras.ops.abs), operation(keras.ops.sqrt)],
            [operation(lambda x: x // 0.3)],
            [operation(lambda x: x % -0.7)],
        ),
        # At a pole of the derivative, one step of the input is many steps of the output.
        steps=None,
    ),
]


def test_lookup_table_by_hand():
    model = keras.Sequential([keras.Input((3,), name="input"), Activation("silu", name="silu")])
    quantized = quantized_with(model, "lookup", input=HALVES, silu=HALVES)
    # silu(1) = 0.731, silu(-1) = -0.269, silu(4) = 3.93, in steps of 0.5
    assert called(quantized, np.array([[1.0, -1.0, 4.0]])).tolist() == [[0.5, -0.5, 4.0]]


@pytest.mark.parametrize("divisor", [0.5, 1.5, -2.0])
@pytest.mark.parametrize("function", [keras.ops.floor_divide, keras.ops.mod])
def test_lookup_of_a_quotient_rounds_down_once(function, divisor):
    x = keras.Input((17,), name="input")
    model = keras.Model(x, function(x, divisor))
    name = list(read_model(model).nodes)[-1]
    quantized = quantized_with(model, input=HALVES, **{name: HALVES})
    data = np.arange(-4, 4.5, 0.5, dtype="float32")[None]
    exact = {"floor_divide": np.floor_divide, "mod": np.mod}[function.__name__](data, divisor)
    np.testing.assert_array_equal(called(quantized, data), exact)
    assert operators_of(exported(quantized)) == ["CAST", "ADD", "GATHER"]


@pytest.mark.parametrize("name", ["softplus", "softsign", "mish"])
def test_lookup_is_three_operators(name):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=name)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    expected = ["FULLY_CONNECTED", "CAST", "ADD", "GATHER"]
    assert operators_of(exported(quantized)) == expected


@pytest.mark.parametrize(
    ("function", "greatest"),
    [
        (lambda x: 1.0 / (x + 1e-7), 1.0),
        (lambda x: keras.ops.rsqrt(x + 1e-7), 1.0),
        (lambda x: keras.ops.power(x + 1e-7, -1.5), 1.0),
        (lambda x: keras.ops.sqrt(x), 255.0**0.5),
    ],
)
def test_lookup_range_ends_at_one_step_before_a_pole(function, greatest):
    """The step of 0 to 255 is 1. An input of 1 is 1, and a smaller input has no integer."""
    x = keras.Input((3,), name="input")
    model = keras.Model(x, function(x))
    data = np.array([[0.0, 1.0, 255.0], [0.01, 3.0, 200.0]], "float32")
    qat = keras_qat.quantize_model(model, calibration_data=data)
    [lookup] = [each for each in qat.layers if isinstance(each, QLookup)]
    np.testing.assert_allclose(float(lookup.observer.maximum), greatest, rtol=1e-5)


def test_quotient_by_sums_that_may_be_zero_runs_on_the_target(tmp_path):
    """Linear attention divides by a sum of weights, plus a small number. Both may be 0."""
    x = keras.Input((6, 4), name="x")
    scores = layer(keras.layers.Dense, 4, "relu", use_bias=False)()(x)
    model = keras.Model(x, scores / (keras.ops.sum(scores, axis=-1, keepdims=True) + 1e-7))
    data = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    data[:, 0] = 0.0
    qat = keras_qat.quantize_model(model, calibration_data=data, target="litert")
    difference = np.abs(called(qat, data) - called(model, data))
    assert difference.mean() < 0.05
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact
