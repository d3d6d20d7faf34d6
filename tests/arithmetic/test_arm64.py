"""The rules of ARM64, against outputs of LiteRT 2.3.0 on a Cortex-A76.

Each case is one where an x86-64 processor computes another integer. On an ARM64 processor the tests
of `test_xnnpack_...` that do not hold are skipped.
"""

import fractions
import math

import numpy as np
import pytest

from keras_qat.arithmetic import arm64, hard_swish
from keras_qat.arithmetic.optimized import requantize, softmax
from keras_qat.arithmetic.xnnpack import elementwise, mean
from tests.arithmetic import oracle

# The scale, the logits, and the outputs.
SOFTMAX = [
    (0.125, [-15, -12, 0], [-99, -86, 58]),
    (0.125, [-4, 9, -3], [-92, 52, -88]),
    (0.025, [81, 77, -12], [0, -12, -115]),
    (0.025, [-37, 11, -76], [-73, 53, -107]),
    (float.fromhex("0x1.22fc8cp-3"), [-93, -52, -93], [-127, 127, -127]),
    (float.fromhex("0x1.0f1786p-6"), [-119, 44, -76], [-114, 85, -99]),
    (float.fromhex("0x1.05f4a6p-3"), [30, 75, 87], [-128, -83, 83]),
    (
        0.125,
        [-17, -68, 22, 111, 79, -71, 66, -47, 28, -59],
        [-128, -128, -128, 123, -123, -128, -127, -128, -128, -128],
    ),
    (
        0.025,
        [29, 86, 113, 28, -24, -69, -51, 126, -4, 55],
        [-119, -91, -54, -119, -126, -127, -127, -26, -124, -111],
    ),
    (
        float.fromhex("0x1.0f1786p-6"),
        [87, -77, 22, -92, -105, 10, 93, 56, -80, -103],
        [-57, -123, -104, -124, -125, -108, -49, -85, -123, -125],
    ),
]


@pytest.mark.parametrize(("scale", "q", "expected"), SOFTMAX)
def test_softmax_equals_the_kernel_of_arm64(scale, q, expected):
    q = np.array([q], "int32")
    assert np.asarray(arm64.softmax(q, np.float32(scale))).tolist() == [expected]
    assert np.asarray(softmax.softmax(q, np.float32(scale))).tolist() != [expected]


# Scales of both inputs and of the output, the inputs and the output. The zero points are constant.
PRODUCTS = [
    ((0.5, 0.5, 16.0), (-84, -128), 115),
    ((0.5, 0.5, 16.0), (-52, -128), 45),
    ((0.5, 0.5, 16.0), (-20, -128), -25),
    ((0.5, 0.25, 64.0), (36, -128), -25),
    ((0.5, 0.25, 64.0), (-60, -124), 1),
    ((0.5, 0.25, 64.0), (68, -124), -33),
]


@pytest.mark.parametrize(("scales", "q", "expected"), PRODUCTS)
def test_multiply_equals_the_kernel_of_arm64(scales, q, expected):
    arguments = q[0], scales[0], -28, q[1], scales[1], 12, scales[2], -8, *oracle.INT8
    assert int(arm64.multiply(*arguments)) == expected
    assert int(elementwise.multiply(*arguments)) == expected - 1


@pytest.mark.parametrize("seed", range(6))
def test_multiply_rounds_exact_products_half_up(seed):
    rng = np.random.default_rng(seed)
    sa, sb, sy = 2.0 ** rng.integers(-6, 0, 3) if seed % 2 else oracle.scales(rng, 3, -6, 2)
    a, b = rng.integers(-255, 256, (2, 2000))
    ratio = fractions.Fraction(float(np.float32(sa) * np.float32(sb) / np.float32(sy)))
    half = fractions.Fraction(1, 2)
    expected = [math.floor(int(x) * int(y) * ratio + half) for x, y in zip(a, b, strict=True)]
    actual = arm64.multiply(a, sa, 0, b, sb, 0, sy, 0, -(2**24), 2**24)
    assert np.asarray(actual).tolist() == expected


@pytest.mark.parametrize(("total", "expected"), [(-637, 29), (-833, 19)])
def test_mean_equals_the_kernel_of_arm64(total, expected):
    arguments = np.int32(total), 49, np.float32(0.5), -28, np.float32(0.2), -8, *oracle.INT8
    assert int(arm64.mean(*arguments)) == expected
    assert int(mean.mean(*arguments)) == expected + 1


# The input's scale and zero point, the output's, the input and the output.
HARD_SWISHES = [
    (0.1, -28, 0.05, -68, -43, -75),
    (0.0061674956, 31, 0.0030837478, -6, -121, -110),
    (0.0045739734, 82, 0.0022869867, 10, -64, -104),
    (0.0051426897, -78, 0.0023144903, -38, -115, -77),
    (0.00419442, -51, 0.001048605, 44, -123, -86),
    (0.00553853, 99, 0.00553853, -94, 42, -120),
]


@pytest.mark.parametrize(("sx", "zx", "sy", "zy", "q", "expected"), HARD_SWISHES)
def test_hard_swish_table_equals_the_kernel_of_arm64(sx, zx, sy, zy, q, expected):
    grids, ends = (np.float32(sx), zx, np.float32(sy), zy), {"low": -128, "high": 127}
    assert int(hard_swish.hard_swish_table(*grids, **ends, rounds_up=True)[q + 128]) == expected
    assert int(hard_swish.hard_swish_table(*grids, **ends)[q + 128]) != expected


# The scales of the input, the weights and the output, the output's zero point, the accumulator and
# the output of CONV_2D or FULLY_CONNECTED with weights of 4 bits.
SUMS = [
    ((0.125, 0.0625, 0.0625), 105, -853, -2),
    ((0.022815747186541557, 0.0319095216691494, 0.08481201529502869), -6, 1223, 4),
    ((0.022815747186541557, 0.04845738038420677, 0.009482271037995815), -6, 510, 53),
    ((0.01630941778421402, 0.05897757038474083, 0.01644723117351532), -81, -197, -93),
    ((0.01630941778421402, 0.025510549545288086, 0.04633771628141403), -81, 4510, -41),
    ((0.125, 0.0625, 0.125), -92, 1751, 17),
    ((0.045637764036655426, 0.09267134964466095, 0.08738987147808075), -21, 2035, 77),
    ((0.19908368587493896, 0.3185907304286957, 0.9247325658798218), 2, 1538, 107),
]


@pytest.mark.parametrize(("scales", "zero_point", "acc", "expected"), SUMS)
def test_requantize_half_up_equals_the_kernel_of_arm64(scales, zero_point, acc, expected):
    sx, sw, sy = np.array(scales, "float32")
    arguments = np.array([acc], "int32"), sx, sw, sy, zero_point, *oracle.INT8
    assert int(arm64.requantize_half_up(*arguments)[0]) == expected
    assert int(requantize.requantize_half_up(*arguments)[0]) != expected


@pytest.mark.parametrize("seed", range(4))
def test_requantize_half_up_rounds_once(seed):
    rng = np.random.default_rng(seed)
    sx, sw, sy = oracle.scales(rng, 3, -7, 0)
    acc = rng.integers(-(2 ** (10 + 6 * seed)), 2 ** (10 + 6 * seed), 2000, "int32")
    multiplier, shift = oracle.quantize_multiplier(float(sx) * float(sw) / float(sy))
    ratio = fractions.Fraction(multiplier) * fractions.Fraction(2) ** (shift - 31)
    half = fractions.Fraction(1, 2)
    expected = [min(max(math.floor(value * ratio + half), -9999), 9999) for value in acc.tolist()]
    actual = arm64.requantize_half_up(acc, sx, sw, sy, 0, -9999, 9999)
    assert np.asarray(actual).tolist() == expected
