"""The integers of layers with a kernel: what biases cost, and that nothing overflows."""

import keras
import numpy as np
import pytest

from keras_qat.layers import QDense

layers = keras.layers


def dense(kernel, bias, scheme="int8"):
    layer = QDense(len(bias), scheme=scheme)
    layer.build((None, len(kernel)))
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return layer


def test_bias_pressure_by_hand():
    """In steps of 2: a bias of 2^33 is 2^32 of them, eight times what fits at a scale of 1."""
    layer = dense([[1.27, 1.27, 0.0], [-1.27, 0.5, 0.0]], [5.0, -(2.0**33), 2.0**33])
    pressure = layer.bias_pressure(2.0, 2.0**24)
    np.testing.assert_allclose(pressure.needed, [0.01, 0.01, 8.0], rtol=1e-6)
    np.testing.assert_allclose(pressure.given, [0.01, 8.0, 8.0], rtol=1e-6)
    # A channel without weights has none that could lose steps.
    np.testing.assert_allclose(pressure.factor, [1.0, 800.0, 1.0], rtol=1e-6)
    scales = layer.integer_weights(np.float32(2.0), np.float32(2.0**24)).kernel_scale
    np.testing.assert_array_equal(scales, pressure.given)


@pytest.mark.parametrize("bias", [[5.0, 2.0**33], [2.0**33, 5.0]])
def test_one_large_bias_presses_on_all_channels_of_a_tensor(bias):
    pressure = dense([[1.27, 1.27], [-1.27, 0.5]], bias, "uint8").bias_pressure(2.0, 2.0**24)
    np.testing.assert_allclose(pressure.needed, [0.01], rtol=1e-6)
    np.testing.assert_allclose(pressure.factor, [800.0], rtol=1e-6)


def test_usual_biases_press_on_nothing():
    layer = dense(np.random.default_rng(0).normal(size=(30, 9)), np.linspace(-9, 9, 9))
    assert layer.bias_pressure(0.02, 0.1).factor.tolist() == [1.0] * 9
