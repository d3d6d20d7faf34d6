"""Requantization against LiteRT's reference kernels."""

import fractions

import numpy as np
import pytest

from keras_qat.arithmetic import fixed_point, requantize
from keras_qat.litert import Tensor
from tests.arithmetic import oracle

BATCH, CHANNELS = 128, 64


def accumulators(rng, spread):
    """Returns one input, one weight per channel and a bias, which give any accumulator."""
    x = oracle.int8s(rng, (BATCH, 1))
    w = rng.integers(-127, 128, CHANNELS, "int8")
    bias = rng.integers(-spread, spread, CHANNELS, dtype="int32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    return x, w, bias, zx, zy, (x.astype("int32") - zx) * w.astype("int32") + bias


def powers_of_two(rng):
    return np.float32(1), np.exp2(rng.integers(-9, 1, CHANNELS)).astype("float32"), np.float32(2)


def any_ratio(rng):
    sx, sy = oracle.scales(rng, 2, -7, 0)  # beyond int32 the behaviour of the kernels is undefined
    return sx, oracle.scales(rng, CHANNELS, -9, 0), sy


def tiny_ratio(rng):
    return np.float32(1e-4), oracle.scales(rng, CHANNELS, -20, -10), np.float32(3)


def huge_ratio(rng):
    return np.float32(3), oracle.scales(rng, CHANNELS, 0, 6), np.float32(0.5)


def small_fractions(rng):
    weights = np.float32(rng.integers(1, 50, CHANNELS))
    return np.float32(1), weights, np.float32(2 * rng.integers(1, 50))


SCALES = [powers_of_two, any_ratio, tiny_ratio, huge_ratio, small_fractions]


@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22])
def test_requantize_equals_conv_2d(choose, spread):
    rng = np.random.default_rng(spread)
    x, w, bias, zx, zy, acc = accumulators(rng, spread)
    sx, sw, sy = choose(rng)
    expected = oracle.reference(
        "CONV_2D",
        [
            oracle.activation(x[:, :, None, None], sx, zx),
            oracle.constant("w", w[:, None, None, None], sw),
            oracle.constant("b", bias, sx * sw),
        ],
        (BATCH, 1, 1, CHANNELS),
        sy,
        zy,
        3,
        padding="VALID",
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    ).reshape(acc.shape)
    multiplier, shift = fixed_point.conv_multiplier(sx, sw, sy)
    actual = requantize.requantize(acc, multiplier, shift, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22])
@pytest.mark.parametrize("per_channel", [True, False])
def test_requantize_float64_equals_fully_connected(choose, spread, per_channel):
    rng = np.random.default_rng(spread)
    x, w, bias, zx, zy, acc = accumulators(rng, spread)
    sx, sw, sy = choose(rng)
    sw = sw if per_channel else sw[:1]
    expected = oracle.reference(
        "FULLY_CONNECTED",
        [
            oracle.activation(x, sx, zx),
            oracle.constant("w", w[:, None], sw),
            oracle.constant("b", bias, sx * sw),
        ],
        acc.shape,
        sy,
        zy,
        12 if per_channel else 4,
    )
    actual = requantize.requantize_float64(acc, sx, sw, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize("divisor", [2, 3, 6, 7, 14, 22, 46, 49, 98, 107, 255])
def test_requantize_float64_on_ties(divisor):
    acc = np.arange(-127 * divisor, 127 * divisor, dtype="int32")
    sw = np.float32(1.7)  # so the ratio is a double next to 1 / divisor
    sx, sy = np.float32(1), np.float32(sw * divisor)
    ratio = float(sx) * float(sw) / float(sy)
    expected = [oracle.round_half_away(fractions.Fraction(float(a) * ratio)) for a in acc.tolist()]
    actual = requantize.requantize_float64(acc, sx, sw, sy, 0, -1000, 1000)
    assert np.asarray(actual).tolist() == expected


def test_requantize_float64_saturates_far_outside_int32():
    acc = np.array([2**31 - 1, -(2**31), 1], "int32")
    actual = requantize.requantize_float64(acc, 1e6, 1.0, 1.0, 5, *oracle.INT8)
    assert np.asarray(actual).tolist() == [127, -128, 127]


@pytest.mark.parametrize("seed", range(12))
def test_quantize_equals_the_operator_on_floats(seed):
    rng = np.random.default_rng(seed)
    scale = oracle.scales(rng, 1)[0]
    zero_point = int(rng.integers(-128, 128))
    near_ties = np.float32(rng.integers(-500, 500, 5000)) * np.float32(0.5) * scale
    x = np.concatenate([near_ties, rng.standard_normal(5000) * scale * 60]).astype("float32")
    operands = [(Tensor("x", x.shape, "float32"), x)]
    expected = oracle.reference("QUANTIZE", operands, x.shape, scale, zero_point)
    actual = requantize.quantize(x, scale, zero_point, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


def test_quantize_saturates():
    x = np.array([np.inf, -np.inf, 3e38, -3e38], "float32")
    actual = requantize.quantize(x, 1e-6, 7, *oracle.INT8)
    assert np.asarray(actual).tolist() == [127, -128, 127, -128]


@pytest.mark.parametrize("seed", range(15))
def test_rescale_equals_the_operator_on_int8(seed):
    rng = np.random.default_rng(seed)
    sx, sy = oracle.scales(rng, 2, -4, 2) if seed % 3 else rng.integers(1, 30, 2).astype("float32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    q = np.arange(-128, 128, dtype="int8")
    operands = [oracle.activation(q, sx, zx)]
    expected = oracle.reference("QUANTIZE", operands, q.shape, sy, zy, 2)
    actual = requantize.rescale(q.astype("int32"), sx, zx, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()
