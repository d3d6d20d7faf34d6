"""Normalization in int32 against exact sums and double precision; the interpreter is in layers."""

import numpy as np
import pytest

from keras_qat.arithmetic.normalize import (
    INT32_END,
    LARGEST_GROUP,
    Normalization,
    half_divisors,
    normalize,
)
from tests.arithmetic import oracle

COUNTS = [1, 2, 7, 768, 33_026, 150_528, LARGEST_GROUP]
EPSILON = {"layer": 1e-3, "rms": 1e-6, "unit": 1e-12}
KINDS = list(EPSILON)


def groups_of(count):
    """Groups at the ends of int8: the largest sums, single outliers, equal values, noise."""
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


def integers(x, kind, scale, output_scale, zero_point=0):
    rule = Normalization(x.shape[1], kind, EPSILON[kind])
    halves = half_divisors(scale, output_scale, normalization=rule)
    options = {"axes": (1,), "normalization": rule, "low": -128, "high": 127}
    return np.asarray(normalize(x, halves, zero_point, **options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("scale", [1e-7, 3e-3, 0.7, 1e5])
def test_is_near_double(kind, count, scale):
    """Where a sum overflowed, no result would be near."""
    scale, x = np.float32(scale), groups_of(count) - (0 if kind == "layer" else -128)
    exact = in_double(x, kind, scale)
    output_scale = np.float32(max(np.abs(exact).max(), 1e-6) / 127)
    y = integers(x, kind, scale, output_scale)
    # Half a step by rounding; 1/512 of the result by the table, its divisors or the mean.
    short = max(-Normalization(count, kind, 0.0).square_bits, 0)
    allowed = 0.52 + np.abs(exact / output_scale) / (256 if short else 400)
    sums = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1) > 64 * count * bool(short)
    away = np.abs(y - exact / output_scale)
    assert (away <= allowed)[sums].all(), (away - allowed)[sums].max()


@pytest.mark.parametrize("count", COUNTS)
def test_equal_values_are_the_zero_point(count):
    x = np.repeat(np.array([-128, -1, 0, 127], "int32")[:, None], count, axis=1)
    for scale in np.array([1e-7, 0.1, 1e5], "float32"):
        assert (integers(x, "layer", scale, np.float32(0.03), -7) == -7).all()
    zeros = np.zeros((1, count), "int32")
    assert (integers(zeros, "unit", np.float32(0.1), np.float32(0.01), 3) == 3).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [*COUNTS, 20_000, 524_287])
def test_no_intermediate_integer_exceeds_int32(kind, count):
    """The bounds of each step of `normalize`, in Python's integers."""
    rule = Normalization(count, kind, EPSILON[kind])
    deviation = 255**2 if kind != "layer" else 128**2  # the mean square, at most
    assert count * (deviation / rule.square_unit + (rule.square_unit > 1) / 2) < INT32_END
    assert rule.segments.greatest < INT32_END
    assert sum(rule.segments.caps) < 8000
    if kind == "layer":
        unit = 2**rule.mean_bits
        assert rule.mean_bits >= 1
        assert 128 * count * unit + count // 2 < INT32_END
        assert (unit // 2) ** 2 * count < INT32_END and rule.rest_unit >= 1
    halves = np.asarray(half_divisors(1e5, 1e5, normalization=rule))
    assert 1 <= halves.min() and halves.max() < 2**30
    assert 255 * 2**22 + 2**30 - 1 < INT32_END


def test_divisors_keep_sixteen_bits():
    rule = Normalization(64, "layer", 1e-3)
    for input_scale in oracle.scales(np.random.default_rng(0), 20):
        halves = np.asarray(half_divisors(input_scale, np.float32(0.03), normalization=rule))
        variances = rule.segments.middles / 4.0**rule.square_bits / 64
        exact = np.sqrt(variances * np.float64(input_scale) ** 2 + 1e-3)
        exact *= np.float64(np.float32(0.03)) / input_scale * 2**21
        exact = np.clip(exact, 1, 2**30 - 1)
        assert (np.abs(halves - exact) <= 0.51 + exact / 2**16).all()
