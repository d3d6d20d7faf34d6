"""The integers of layers with a kernel: the cost of large biases, and files without biases."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_qat
from keras_qat.layers import QDense
from keras_qat.litert import Runner
from tests import seeds
from tests.layers.litert_files import exported
from tests.quick import some_quick

layers = keras.layers


def dense(kernel, bias, scheme="int8"):
    layer = QDense(len(bias), scheme=scheme)
    layer.build((None, len(kernel)))
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return layer


def test_bias_pressure_by_hand():
    """In steps of 2, a bias of 2^33 is 2^32 steps: eight times the limit at a scale of 1."""
    layer = dense([[1.27, 1.27, 0.0], [-1.27, 0.5, 0.0]], [5.0, -(2.0**33), 2.0**33])
    pressure = layer.bias_pressure(2.0, 2.0**24)
    np.testing.assert_allclose(pressure.needed, [0.01, 0.01, 8.0], rtol=1e-6)
    np.testing.assert_allclose(pressure.given, [0.01, 8.0, 8.0], rtol=1e-6)
    # A channel of zeros has no weights that could lose steps.
    np.testing.assert_allclose(pressure.factor, [1.0, 800.0, 1.0], rtol=1e-6)
    scales = layer.integer_weights(np.float32(2.0), np.float32(2.0**24)).kernel_scale
    np.testing.assert_array_equal(scales, pressure.given)


@pytest.mark.parametrize("bias", [[5.0, 2.0**33], [2.0**33, 5.0]])
def test_bias_pressure_per_tensor_affects_all_channels(bias):
    pressure = dense([[1.27, 1.27], [-1.27, 0.5]], bias, "uint8").bias_pressure(2.0, 2.0**24)
    np.testing.assert_allclose(pressure.needed, [0.01], rtol=1e-6)
    np.testing.assert_allclose(pressure.factor, [800.0], rtol=1e-6)


def test_bias_pressure_of_usual_biases_is_one():
    layer = dense(np.random.default_rng(0).normal(size=(30, 9)), np.linspace(-9, 9, 9))
    assert layer.bias_pressure(0.02, 0.1).factor.tolist() == [1.0] * 9


SHAPE = (5, 5, 4)
KERNELS = {
    "CONV_2D": lambda **arguments: layers.Conv2D(4, 3, **arguments),
    "DEPTHWISE_CONV_2D": lambda **arguments: layers.DepthwiseConv2D(3, **arguments),
    "TRANSPOSE_CONV": lambda **arguments: layers.Conv2DTranspose(4, 3, **arguments),
    "FULLY_CONNECTED": lambda **arguments: layers.Dense(4, **arguments),
}
MAY_LACK_A_BIAS = ("TRANSPOSE_CONV", "FULLY_CONNECTED")


def file_of(make, scheme, x, *behind, **arguments):
    """Returns the file of a layer. The layer is in float if the scheme is None."""
    seeds.seed(0)
    model = keras.Sequential([keras.Input(SHAPE), make(name="it", **arguments), *behind])
    overrides: dict = {"it": None} if scheme is None else {}
    quantized = keras_qat.quantize_model(model, scheme or "int8", overrides=overrides)
    keras_qat.calibrate(quantized, x, verbose=0)
    return exported(quantized)


def operands_of(content, code):
    """Returns the operands that the first operator of a kind has."""
    model = schema.ModelT.InitFromPackedBuf(content)
    number = getattr(schema.BuiltinOperator, code)
    for operator in model.subgraphs[0].operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == number:
            return [index for index in operator.inputs if index >= 0]
    raise AssertionError(f"no {code}")


@pytest.mark.parametrize("activation", some_quick([None, "relu"], 1))
@pytest.mark.parametrize("scheme", some_quick(["int8", "uint8", None], 0, 2))
@pytest.mark.parametrize("code", KERNELS)
def test_export_writes_no_bias_of_zeros_where_the_operator_allows_it(code, scheme, activation):
    """With both sets of kernels the file gives the results of a file with a bias of zeros."""
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    with_zeros = file_of(KERNELS[code], scheme, x, activation=activation)
    without = file_of(KERNELS[code], scheme, x, activation=activation, use_bias=False)
    fewer = len(operands_of(with_zeros, code)) - len(operands_of(without, code))
    assert fewer == (1 if code in MAY_LACK_A_BIAS else 0)
    for kernels in ("reference", "default"):
        one, other = (Runner(each, kernels=kernels) for each in (with_zeros, without))
        (fed,) = one.inputs
        # Integers with a deviation of 40, near the middle of their type.
        q = x if fed.dtype == np.float32 else (x * 40 + 100 * (fed.dtype == np.uint8))
        y = [runner.run([q.astype(fed.dtype)])[0] for runner in (one, other)]
        assert len(np.unique(y[0])) > 20
        np.testing.assert_array_equal(y[0], y[1])


@pytest.mark.parametrize("code", MAY_LACK_A_BIAS)
@pytest.mark.parametrize("scheme", ["int8", None])
def test_export_writes_a_folded_batch_norm_as_a_bias(code, scheme):
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    norm = layers.BatchNormalization(beta_initializer="ones")
    file = file_of(KERNELS[code], scheme, x, norm, use_bias=False)
    assert len(operands_of(file, code)) == (3 if code == "FULLY_CONNECTED" else 4)


def test_export_writes_a_folded_offset_as_a_bias():
    x = np.random.default_rng(0).random((8, 4), "float32")
    rescaling = layers.Rescaling(2.0, offset=-1.0)
    dense = layers.Dense(3, use_bias=False, name="it")
    model = keras.Sequential([keras.Input((4,)), rescaling, dense])
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    assert len(operands_of(exported(quantized), "FULLY_CONNECTED")) == 3
