"""Functions in float32 operators, also far from 0. The oracle is double precision."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QLookup
from keras_qat.layers.elementwise.functions import Function, looked_up
from tests.layers.litert_files import exported, run_litert
from tests.models import called

FLOAT_ENDS = {"inference_input_type": "float32", "inference_output_type": "float32"}
X = np.array([[-90.0, -5.0, -1.0, -0.3, -1e-3, 0.0, 1e-3, 0.3, 1.0, 5.0, 80.0]], "float32")
POSITIVE = np.array([[1e-6, 0.1, 0.5, 1.0, 2.0, 50.0]], "float32")
WITHIN = np.array([[-0.99, -0.5, -1e-3, 0.0, 1e-3, 0.5, 0.99]], "float32")


def in_file(function, x):
    """Returns the outputs of LiteRT's reference kernels for a model of one float layer."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, function(inputs))
    quantized = keras_qat.quantize_model(model, overrides={".*": None})
    keras_qat.calibrate(quantized, x, verbose=0)
    tensors, (name,) = run_litert(exported(quantized, **FLOAT_ENDS), [x])
    return tensors[name][0]


def softplus(x):
    return np.logaddexp(0.0, x)


@pytest.mark.parametrize(
    ("function", "x", "exact"),
    [
        (layers.Activation("softplus"), X, softplus),
        (layers.Activation("mish"), X, lambda x: x * np.tanh(softplus(x))),
        (layers.Activation("silu"), X, lambda x: x / (1 + np.exp(-x))),
        (layers.Activation("log_sigmoid"), X, lambda x: -softplus(-x)),
        (layers.Activation("tanh"), X, np.tanh),
        (layers.ELU(0.5), X, lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0)))),
        (
            layers.ReLU(4.0, 0.1, 0.2),
            X,
            lambda x: np.where(x < 0.2, 0.1 * (x - 0.2), np.minimum(x, 4)),
        ),
        (keras.ops.arctan, X, np.arctan),
        (keras.ops.arcsinh, X, np.arcsinh),
        (keras.ops.trunc, X, np.trunc),
        (keras.ops.sign, X, np.sign),
        (
            keras.ops.round,
            np.array([[-1.5, -0.5, 0.5, 0.49999997, 2.5, 3.5, 1e7]], "float32"),
            np.round,
        ),
        (lambda x: keras.ops.round(x, 1), X, lambda x: np.round(x, 1)),
        (lambda x: x // 0.25, X, lambda x: np.floor_divide(x, 0.25)),
        (lambda x: x % 0.25, X, lambda x: np.mod(x, 0.25)),
        (keras.ops.log, POSITIVE, np.log),
        (keras.ops.log10, POSITIVE, np.log10),
        (keras.ops.log2, POSITIVE, np.log2),
        (keras.ops.reciprocal, POSITIVE, lambda x: 1 / x),
        (keras.ops.rsqrt, POSITIVE, lambda x: 1 / np.sqrt(x)),
        (keras.ops.arcsin, WITHIN, np.arcsin),
        (keras.ops.arctanh, WITHIN, np.arctanh),
        (keras.ops.tan, WITHIN, np.tan),
    ],
)
def test_float_function_is_near_double(function, x, exact):
    found, expected = in_file(function, x), exact(x.astype("float64"))
    assert np.max(np.abs(found - expected)) <= 1e-6 * np.max(np.abs(expected))


def test_float_erf_is_continuous_at_zero():
    expected = [-1.0, -0.8427007929, -0.0011283788, 0.0, 0.0011283788, 0.8427007929, 1.0]
    x = np.array([[-6.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 6.0]], "float32")
    np.testing.assert_allclose(in_file(keras.ops.erf, x)[0], expected, rtol=0, atol=1e-6)


OPTIONS = {
    "clip": {"x_min": -0.2, "x_max": 0.6},
    "power": {"x2": 1.5},
    "threshold": {"threshold": 0.2, "default_value": -0.4},
}


def test_every_lookup_function_has_a_float_form():
    """All functions in one file, on 1.1 to 1.9 or 0.1 to 0.9, where each function is defined."""
    names = [name for name in looked_up() if name != "power"]
    inputs = keras.Input((9,))
    beyond_one = keras.ops.add(inputs, 1.0)
    outputs = []
    for name in names:
        function = Function(name, tuple(OPTIONS.get(name, {}).items()))
        x = beyond_one if name == "arccosh" else inputs
        outputs.append(QLookup(name, dict(function.options), name=name)(x))
    x = np.linspace(0.1, 0.9, 9, dtype="float32")[None]
    model = keras.Model(inputs, outputs)
    quantized = keras_qat.quantize_model(model, overrides={".*": None})
    keras_qat.calibrate(quantized, x, verbose=0)
    tensors, found = run_litert(exported(quantized, **FLOAT_ENDS), [x])
    expected = called(model, x)
    assert len(found) == len(names) > 40
    for name, ours, values in zip(names, found, expected, strict=True):
        np.testing.assert_allclose(tensors[ours][0], values, rtol=1e-5, atol=1e-6, err_msg=name)
