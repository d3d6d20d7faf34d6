"""recognize_functions: activations written in arithmetic become one operation."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.graph import read_model
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.passes.recognize_functions import recognize_functions
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, maximum_difference

DATA = np.random.default_rng(0).normal(0, 3, (8, 5, 4)).astype("float32")
CUBIC = 0.044715
ROOT = float(np.sqrt(2 / np.pi))


def model_of(function):
    x = keras.Input((5, 4), name="x")
    return keras.Model(x, function(x))


def functions_of(graph) -> list[Any]:
    return [function_of(node.head) for node in graph.nodes.values() if not node.is_input]


WRITTEN = [
    ("hard_silu", lambda x: x * ops.relu6(x + 3) / 6),
    ("hard_silu", lambda x: x * (ops.relu6(x + 3.0) * (1.0 / 6.0))),
    ("hard_silu", lambda x: (ops.relu6(3 + x) / 6) * x),
    ("hard_silu", lambda x: layers.Multiply()([layers.ReLU(6.0)(x + 3) / 6, x])),
    ("hard_silu", lambda x: x * ops.clip(x / 6 + 0.5, 0, 1)),
    ("hard_silu", lambda x: x * ops.hard_sigmoid(x)),
    ("silu", lambda x: x * ops.sigmoid(x)),
    ("silu", lambda x: layers.Multiply()([layers.Activation("sigmoid")(x), x])),
    ("gelu", lambda x: 0.5 * x * (1 + ops.erf(x / float(np.sqrt(2))))),
    ("gelu", lambda x: 0.5 * x * (1 + ops.tanh(ROOT * (x + CUBIC * x * x * x)))),
    ("mish", lambda x: x * ops.tanh(ops.softplus(x))),
    ("softplus", lambda x: ops.log(1 + ops.exp(x))),
    ("softsign", lambda x: x / (1 + ops.abs(x))),
    ("sigmoid", lambda x: (1 + ops.tanh(x / 2)) / 2),
    ("tanh", lambda x: 2 * ops.sigmoid(2 * x) - 1),
]


@pytest.mark.parametrize(("name", "function"), WRITTEN)
def test_recognize_functions_finds_functions_written_in_arithmetic(name, function):
    model = model_of(function)
    graph = applied(recognize_functions, model)
    assert [found.name for found in functions_of(graph)] == [name]
    assert maximum_difference(graph, model, DATA) < 1e-4


def test_recognize_functions_keeps_the_form_of_gelu():
    exact, tanh = (
        functions_of(applied(recognize_functions, model_of(function)))[0].options
        for name, function in WRITTEN
        if name == "gelu"
    )
    assert exact == (("approximate", False),) and tanh == (("approximate", True),)


def test_recognize_functions_makes_three_operators_of_hard_swish():
    x = keras.Input((5, 4))
    y = layers.Dense(3)(x)
    model = keras.Model(x, y * ops.relu6(y + 3) / 6)
    quantized = keras_qat.quantize_model(model, calibration_data=DATA)
    assert operators_of(exported(quantized)) == ["FULLY_CONNECTED", "ADD", "MUL", "MUL"]
    assert str(quantized.rewrite_log[0]).startswith("recognize_functions: ")


def test_recognize_functions_takes_the_function_of_an_inner_tensor():
    """`x` is scaled first. The hard-swish is that of the scaled tensor."""
    graph = applied(recognize_functions, model_of(lambda x: WRITTEN[0][1](2 * x + 1)))
    names = [None if each is None else each.name for each in functions_of(graph)]
    assert names == [None, None, "hard_silu"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * ops.relu6(x + 2) / 6,  # a different function
        lambda x: x * ops.sigmoid(1.7 * x),
        lambda x: [(y := ops.sigmoid(x)), x * y],  # an inner tensor is an output
        lambda x: ops.mean(x, axis=1, keepdims=True) * ops.sigmoid(x),  # two tensors
        lambda x: x * np.arange(1, 5, dtype="float32"),  # not a scalar
    ],
)
def test_recognize_functions_leaves_other_expressions(function):
    graph = read_model(model_of(function))
    assert recognize_functions(graph) is graph
