"""write_quotients: quotients become products with reciprocals, and powers become functions."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.models import called
from tests.passes.customs import MyDense, around, assert_exact, names, normal

SHAPE = (5, 4)
ARRAY = 1 + np.abs(normal(SHAPE, 1)[0])


def positive(x):
    """Returns values of at least 1."""
    return ops.softplus(x) + 1.0


EXPRESSIONS = {
    "quotient": (lambda x: x / positive(x), "QMultiply"),
    "of_a_constant": (lambda x: 3.0 / positive(x), "QBatchNormalization"),
    "of_an_array": (lambda x: ops.divide(ARRAY, positive(x)), "QMultiply"),
    "by_an_array": (lambda x: ops.divide(x, ARRAY), "QMultiply"),
    "by_a_number": (lambda x: x / 2, "QBatchNormalization"),
    "reciprocal": (lambda x: 1 / positive(x), "QLookup"),
    "square": (lambda x: x**2, "QLookup"),
    "cube": (lambda x: x**3, "QLookup"),
    "root": (lambda x: ops.power(positive(x), 0.5), "QLookup"),
    "power": (lambda x: ops.power(positive(x), -0.7), "QLookup"),
    "exponential": (lambda x: 2**x, "QLookup"),
    "exp2": (ops.exp2, "QLookup"),
    "sine": (lambda x: ops.sin(3 * x), "QLookup"),
    "arcsine": (lambda x: ops.arcsin(ops.tanh(x)), "QLookup"),
    "logarithm": (lambda x: ops.log2(positive(x)), "QLookup"),
    "cube_root": (lambda x: ops.cbrt(positive(x)), "QLookup"),
    "floor": (ops.floor, "QLookup"),
    "round": (lambda x: ops.round(2 * x), "QLookup"),
    "sign": (lambda x: x * ops.sign(x), "QMultiply"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_write_quotients_is_exact(name, tmp_path):
    expression, last = EXPRESSIONS[name]
    quantized = assert_exact(around(expression, SHAPE), normal(SHAPE), tmp_path)
    # The first two layers are the input and its quantization.
    assert type(quantized.layers[-1]).__name__ == last


def test_write_quotients_is_accurate_to_the_steps_of_its_factors():
    """The error is half a step each of dividend, divisor, reciprocal and result."""
    a, b = keras.Input(SHAPE), keras.Input(SHAPE)
    model = keras.Model([a, b], a / b)
    data = normal(SHAPE, 256), 1 + np.abs(normal(SHAPE, 256, seed=1))
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    difference = np.abs(called(quantized, list(data)) - data[0] / data[1])
    dividend, divisor = (np.ptp(np.append(x, 0.0)) for x in data)
    steps = np.array([dividend, divisor, 1.0, np.ptp(data[0] / data[1])]) / 255 / 2
    # The effect of each error in the result, for divisors of 1 or more.
    slopes = np.array([1.0, np.abs(data[0]).max(), np.abs(data[0]).max(), 1.0])
    assert difference.max() <= 1.05 * np.sum(steps * slopes)


def test_write_quotients_of_several_powers():
    model = around(lambda x: x**2 + x**3, SHAPE)
    assert names(keras_qat.clone_model(model))[-1] == "QAdd"


class Divided(MyDense):
    """Divides a weight by a tensor."""

    def call(self, inputs):
        return self.w / inputs + self.b


def test_write_quotients_refuses_a_trainable_dividend():
    model = around(Divided(4, name="divided"), (4, 4))
    with pytest.raises(UnsupportedLayerError, match="(?s)weight that trains.*divided.*'w'"):
        keras_qat.clone_model(model)


@pytest.mark.parametrize("divisor", [lambda x: x + 9.0, lambda x: np.ones(3, "float32")])
def test_write_quotients_refuses_other_divisors_that_round_down(divisor):
    model = around(lambda x: x // divisor(x), (3,))
    with pytest.raises(UnsupportedLayerError, match="rounded down.*floor_divide"):
        keras_qat.clone_model(model)
