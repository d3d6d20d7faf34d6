"""LOGISTIC against LiteRT's reference kernel, on all int8 values."""

import numpy as np
import pytest

from keras_qat.arithmetic.logistic import STEPS_IN_ONE, logistic_table
from tests.arithmetic import oracle

EVERY = np.arange(-128, 128, dtype="int8")[None]


@pytest.mark.parametrize("scale", [1e-6, 0.5, 10.0, *oracle.scales(np.random.default_rng(0), 60)])
def test_logistic_table_equals_the_reference_kernel(scale):
    scale = np.float32(scale)
    for zero_point in (-128, -3, 0, 90, 127):
        operands = [oracle.activation(EVERY, scale, zero_point)]
        grid = 1 / STEPS_IN_ONE, -128
        expected = oracle.reference("LOGISTIC", operands, EVERY.shape, *grid, version=2)[0]
        actual = logistic_table(scale, zero_point, -128, low=-128, high=127)
        assert (np.asarray(actual) == expected).all()


def test_logistic_table_of_an_overflow_is_zero():
    assert int(np.asarray(logistic_table(10.0, 127, -128, low=-128, high=127))[0]) == -128
