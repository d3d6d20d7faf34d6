"""Steps in float against NumPy's doubles, which round correctly, and exact fractions."""

import fractions

import numpy as np
import pytest
from keras import ops

from keras_qat.arithmetic import exact_float
from keras_qat.backend import float64
from tests.arithmetic.oracle import round_half_away, scales


def test_exponent_equals_frexp_next_to_powers_of_two():
    powers = 2.0 ** np.arange(-60, 60)
    x = np.concatenate([np.nextafter(powers, 0), powers, np.nextafter(powers, np.inf)])
    with float64():
        actual = np.asarray(exact_float.exponent(ops.cast(x, "float64")))
    assert (actual == np.frexp(x)[1]).all()


def test_power_of_two_is_exact():
    n = np.arange(-128, 129, dtype="int32")
    with float64():
        assert (np.asarray(exact_float.power_of_two(ops.cast(n, "int32"))) == 2.0**n).all()


def test_quotient_rounds_correctly():
    rng = np.random.default_rng(0)
    a = scales(rng, 50_000).astype("float64") * scales(rng, 50_000)
    b = scales(rng, 50_000, -20, 20).astype("float64")
    with float64():
        actual = np.asarray(exact_float.quotient(ops.cast(a, "float64"), ops.cast(b, "float64")))
    assert (actual == a / b).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_half_away_takes_ties_away_from_zero(dtype):
    halves = np.arange(-1000.5, 1001, dtype=dtype)
    x = np.concatenate([halves, np.nextafter(halves, 0), np.nextafter(halves, 2000), [0.0, -0.0]])
    x = x.astype(dtype)
    with float64():
        actual = np.asarray(exact_float.round_half_away(ops.cast(x, dtype)))
    assert actual.tolist() == [round_half_away(fractions.Fraction(float(v))) for v in x]


def test_round_half_away_saturates():
    x = ops.array([1e30, -1e30, np.inf, 2.0**29])
    assert np.asarray(exact_float.round_half_away(x)).tolist() == [2**29, -(2**29), 2**29, 2**29]
