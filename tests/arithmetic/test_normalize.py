"""Normalization in integers against double precision. Tests of layers use the interpreter."""

import itertools
from typing import Any

import numpy as np
import pytest

from keras_qat.arithmetic.elementwise import subtract
from keras_qat.arithmetic.multiply import multiply
from keras_qat.arithmetic.normalize import (
    LARGEST_GROUP,
    Normalization,
    normalize,
    parts_of,
    reciprocals,
)
from tests.arithmetic import oracle
from tests.quick import some_quick

INT32_END = 2**31
COUNTS = [1, 2, 7, 768, 33_026, 150_528, LARGEST_GROUP]
EPSILON = {"layer": 1e-3, "rms": 1e-6, "unit": 1e-12}
KINDS = list(EPSILON)


def groups_of(count):
    """Returns groups at the limits of int8: largest sums, outliers, equal values, noise."""
    rng, group = np.random.default_rng(count), np.zeros((10, count), "int32")
    group[0], group[1], group[2] = -128, 127, 5
    group[3, : count // 2], group[3, count // 2 :] = -128, 127
    group[4], group[4, 0], group[5], group[5, -1] = 127, -128, 0, 1
    group[6], group[6, :2] = -128, -127
    group[7:9] = rng.integers(-128, 128, (2, count))
    group[9] = np.clip(np.rint(rng.normal(40, 3, count)), -128, 127)
    return group


def in_double(x, kind, scale):
    real = x.astype("float64") * np.float64(scale)
    if kind == "layer":
        real = real - real.mean(axis=1, keepdims=True)
    squares = np.sum(real**2, axis=1, keepdims=True)
    if kind == "unit":
        return real / np.maximum(np.sqrt(squares), EPSILON[kind])
    return real / np.sqrt(squares / x.shape[1] + EPSILON[kind])


def integers(x, kind, scale, output_scale, zero_point: Any = 0, reciprocal_scale: Any = None):
    """Normalizes one group. Differences from the mean have the scale of the input."""
    rule = Normalization(x.shape[1], kind, EPSILON[kind])
    middle = np.int32(-128 - (x.min() - round(float(x.mean()))))
    grids = (scale, np.int32(0), scale, middle, reciprocal_scale, output_scale, zero_point)
    options = {"axes": (1,), "normalization": rule, "low": -128, "high": 127}
    options |= {"multiply": multiply, "subtract": subtract}
    return np.asarray(normalize(x, *grids, **options))


# Sums depend on the count, and multipliers on the scale: most pairs of both are slow.
PAIRS = [
    pytest.param(*pair, marks=() if pair[1] == 3e-3 or pair[0] == 7 else pytest.mark.slow)
    for pair in itertools.product(COUNTS, (1e-7, 3e-3, 0.7, 1e5))
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "scale"), PAIRS)
def test_normalize_is_near_double(kind, count, scale):
    """If a sum overflowed, no result would be near."""
    scale = np.float32(scale)
    for group in groups_of(count)[:, None]:
        x = group if kind == "layer" else group + 128
        mean_square = np.mean((x - (x.mean() if kind == "layer" else 0.0)) ** 2)
        if mean_square < (4 if kind == "layer" else 16):
            continue  # smaller mean squares have fewer than 16 steps of the finest resolution
        exact = in_double(x, kind, scale)
        factor = np.abs(exact).max() / (np.abs(x - x.mean() * (kind == "layer")).max() * scale)
        output_scale = np.float32(max(np.abs(exact).max(), 1e-6) / 127)
        y = integers(x, kind, scale, output_scale, 0, np.float32(factor / 250))
        # Three roundings, 1/64 for the mean square of 16 steps, 1/500 for the reciprocal.
        allowed = 1.7 + np.abs(exact / output_scale) * (1 / 64 + 1 / 500)
        away = np.abs(y - exact / output_scale)
        assert (away <= allowed).all(), (group, (away - allowed).max())


@pytest.mark.parametrize("count", some_quick(COUNTS, *range(len(COUNTS) - 3)))
def test_normalize_makes_equal_values_the_zero_point(count):
    x = np.repeat(np.array([-128, -1, 0, 127], "int32")[:, None], count, axis=1)
    for scale in np.array([1e-7, 0.1, 1e5], "float32"):
        for group in x[:, None]:
            output = np.float32(0.03), np.int32(-7), np.float32(0.01)
            assert (integers(group, "layer", scale, *output) == -7).all()
    zeros = np.zeros((1, count), "int32")
    unit = np.float32(0.1), np.float32(0.01), np.int32(3), np.float32(0.01)
    assert (integers(zeros, "unit", *unit) == 3).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [*COUNTS, 20_000, 3 * 2**15])
def test_normalize_stays_within_int32(kind, count):
    """Computes the bounds of each sum in the file in Python's integers."""
    rule = Normalization(count, kind, EPSILON[kind])
    assert rule.parts * rule.part_count == count
    part, ends = rule.part_count, (-128, 127)
    for q, m in itertools.product(ends, ends):  # m is the mean or the zero point
        squares, twice = part * q * q, 2 * m * part * q
        around = squares - m * (2 * part * q - part * m)
        for value in (squares, twice, squares - twice, squares - twice + part * m * m, around):
            assert abs(value) + rule.parts // 2 < INT32_END
        assert around == part * (q - m) ** 2
    assert 128 * count + 128 * count < INT32_END
    assert rule.units[-1] * 255.5 > part * (127.5**2 if kind == "layer" else 255**2)


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2**15, 1), (150_528, 6), (2**20, 32)])
def test_parts_of_divides_a_group(count, parts):
    assert parts_of(count) == parts


def test_parts_of_refuses_a_large_prime():
    assert parts_of(2**17 - 1) is None


@pytest.mark.parametrize("kind", KINDS)
def test_reciprocals_equal_those_of_double(kind):
    rule = Normalization(64, kind, EPSILON[kind])
    for input_scale in oracle.scales(np.random.default_rng(0), 20):
        least = np.sqrt(rule.mean_squares[20]) * np.float64(input_scale)
        scale = np.float32(1 / least / 255)
        table = np.asarray(reciprocals(input_scale, scale, normalization=rule))
        squares = rule.mean_squares * np.float64(input_scale) ** 2
        if kind == "unit":
            exact = 1 / np.maximum(np.sqrt(squares * 64), EPSILON[kind])
        else:
            exact = 1 / np.sqrt(squares + EPSILON[kind])
        np.testing.assert_allclose(table, np.minimum(exact / scale, 255), atol=0.501)


def test_mean_squares_of_normalization_by_hand():
    """With a step of 1/4, the fourth mean square is 1, for 0.875 to 1.125."""
    squares = Normalization(8, "layer", 0.0).mean_squares
    assert squares.tolist()[:5] == [0.0625, 0.25, 0.5, 0.75, 1.0]
    assert len(squares) == 3 * 255 + 1 and (np.diff(squares) > 0).all()
