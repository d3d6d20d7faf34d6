"""Gemmlowp's primitives against Python's integers of any size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_qat.arithmetic import fixed_point
from keras_qat.backend import float64
from tests.arithmetic import oracle

INT32 = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([-(2**31), -(2**31) + 1, -(2**15), -1, 0, 1, 2**15, 2**16, 2**31 - 1]),
    st.builds(lambda k, d: (d << 15) + k, st.integers(-2, 2), st.integers(-65535, 65535)),
)
MULTIPLIERS = st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from([0, 2**30, 2**31 - 1]))


def arrays(values):
    return [np.array(column, "int32") for column in zip(*values, strict=True)]


@given(st.lists(st.tuples(INT32, INT32), min_size=40, max_size=40))
def test_srdhm_over_all_of_int32(pairs):
    actual = fixed_point.srdhm(*(ops.array(x) for x in arrays(pairs)))
    assert np.asarray(actual).tolist() == [oracle.srdhm(a, b) for a, b in pairs]


def test_srdhm_of_two_int32_minima_saturates():
    least = ops.array([-(2**31)], "int32")
    assert np.asarray(fixed_point.srdhm(least, least)).tolist() == [2**31 - 1]


def test_srdhm_at_the_edges_of_its_halves():
    edges = np.array(
        [
            h * 2**16 + low
            for h in (-(2**15), -1, 0, 1, 2**15 - 1)
            for low in (0, 1, 2**15 - 1, 2**15, 2**16 - 1)
        ]
    )
    a, b = (x.ravel() for x in np.meshgrid(edges, edges))
    actual = fixed_point.srdhm(ops.array(a.astype("int32")), ops.array(b.astype("int32")))
    assert np.asarray(actual).tolist() == [
        oracle.srdhm(int(x), int(y)) for x, y in zip(a, b, strict=True)
    ]


@given(st.lists(st.tuples(INT32, st.integers(0, 31)), min_size=40, max_size=40))
def test_rounding_divide_by_pot_over_all_of_int32(pairs):
    actual = fixed_point.rounding_divide_by_pot(*(ops.array(x) for x in arrays(pairs)))
    assert np.asarray(actual).tolist() == [oracle.rounding_divide_by_pot(x, n) for x, n in pairs]


@given(st.lists(st.tuples(INT32, MULTIPLIERS, st.integers(-31, 31)), min_size=40, max_size=40))
def test_multiply_by_quantized_multiplier_over_all_of_int32(triples):
    actual = fixed_point.multiply_by_quantized_multiplier(*arrays(triples))
    assert np.asarray(actual).tolist() == [oracle.multiply(*triple) for triple in triples]


def test_multiply_by_quantized_multiplier_of_many_values():
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**31), 2**31, (500, 32), "int32")
    multiplier = rng.integers(2**30, 2**31, 32, "int32")
    shift = np.arange(-31, 1, dtype="int32")
    actual = np.asarray(fixed_point.multiply_by_quantized_multiplier(x, multiplier, shift))
    expected = [
        [oracle.multiply(*v) for v in zip(row, multiplier.tolist(), shift.tolist(), strict=True)]
        for row in x.tolist()
    ]
    assert actual.tolist() == expected


def quantized(real):
    with float64():
        pair = fixed_point.quantize_multiplier(ops.cast(np.asarray(real, "float64"), "float64"))
        return [
            tuple(column) for column in np.stack([np.asarray(part) for part in pair], 1).tolist()
        ]


@given(st.lists(st.floats(0, 2.0**30), min_size=40, max_size=40))
def test_quantize_multiplier_on_any_float(reals):
    assert quantized(reals) == [oracle.quantize_multiplier(real) for real in reals]


def test_quantize_multiplier_next_to_powers_of_two():
    powers = 2.0 ** np.arange(-40, 30)
    below = powers * (1 - 2.0**-32)  # rounds up to a power of two
    reals = [0.0, *powers, *below, *np.nextafter(powers, 0), *np.nextafter(powers, np.inf)]
    assert quantized(reals) == [oracle.quantize_multiplier(real) for real in reals]


def test_quantize_multiplier_of_a_half_by_hand():
    assert quantized([0.5, 1.0, 2.0**-32, 2.0**-33]) == [
        (2**30, 0),
        (2**30, 1),
        (2**30, -31),
        (0, 0),
    ]


def test_conv_multiplier_equals_that_of_the_double_quotient():
    rng = np.random.default_rng(0)
    for low, high in [(-9, 4), (-30, 4), (-2, 20)]:
        sx, sy = oracle.scales(rng, 2, low, high)
        sw = oracle.scales(rng, 512, -15, 0)
        pair = fixed_point.conv_multiplier(sx, sw, sy)
        real = np.float64(sx) * sw.astype("float64") / np.float64(sy)
        expected = [oracle.quantize_multiplier(value) for value in real]
        assert list(zip(*(np.asarray(part).tolist() for part in pair), strict=True)) == expected
