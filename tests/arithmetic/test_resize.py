"""Bilinear interpolation against LiteRT's reference kernel."""

import numpy as np
import pytest

from keras_qat.arithmetic import resize
from tests.arithmetic import oracle

SIZES = [
    ((5, 7), (10, 14)),
    ((17, 17), (40, 40)),
    ((40, 33), (17, 5)),
    ((1, 3), (7, 200)),
    ((9, 2), (9, 1)),
    ((224, 3), (300, 2)),
]


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("zero_point", [-128, 3])
def test_interpolate_equals_the_reference_kernel(before, after, zero_point):
    rng = np.random.default_rng(0)
    x = oracle.int8s(rng, (max(4, 40_000 // np.prod(after)), *before, 3))
    operands = [
        oracle.activation(x, 0.1, zero_point),
        oracle.constant("size", np.array(after, "int32")),
    ]
    shape = (len(x), *after, 3)
    options = {"alignCorners": False, "halfPixelCenters": True}
    expected = oracle.reference("RESIZE_BILINEAR", operands, shape, 0.1, zero_point, 3, **options)
    height, width = (resize.bilinear_taps(*pair) for pair in zip(before, after, strict=True))
    actual = resize.interpolate(x.astype("int32"), *height, *width)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_interpolate_in_float_equals_the_reference_kernel_of_uint8(before, after):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (max(4, 40_000 // np.prod(after)), *before, 3), dtype="uint8")
    operands = [
        oracle.activation(x, 0.1, 7),
        oracle.constant("size", np.array(after, "int32")),
    ]
    shape = (len(x), *after, 3)
    options = {"alignCorners": False, "halfPixelCenters": True}
    expected = oracle.reference("RESIZE_BILINEAR", operands, shape, 0.1, 7, 3, **options)
    height, width = (resize.bilinear_float_taps(*pair) for pair in zip(before, after, strict=True))
    actual = resize.interpolate_in_float(x.astype("int32"), *height, *width)
    assert (np.asarray(actual) == expected).all()


def test_interpolate_does_not_overflow_at_the_limits():
    q = np.full((1, 3, 3, 1), -128, "int32")
    taps = resize.bilinear_taps(3, 8)
    assert (np.asarray(resize.interpolate(q, *taps, *taps)) == -128).all()


def test_bilinear_taps_may_be_beyond_the_axis():
    assert resize.bilinear_taps(3, 2000).lower.max() == 3
    assert resize.bilinear_taps(3, 300).lower.max() == 2
