"""Bilinear interpolation against XNNPACK."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import resize
from tests.arithmetic import oracle
from tests.arithmetic.test_resize import SIZES


@pytest.mark.one_in(5)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("before", "after"), [*SIZES, ((3, 5), (2000, 1)), ((8, 8), (8, 8))])
@pytest.mark.parametrize("channels", [1, 3, 19])
def test_interpolate_equals_xnnpack(dtype, align_corners, before, after, channels):
    rng = np.random.default_rng(0)
    shape = (max(2, 20_000 // np.prod(after)), *before, channels)
    x = oracle.integers(rng, dtype, shape)
    limits = np.iinfo(dtype)
    x[0] = rng.choice([limits.min, limits.max], shape[1:])
    size = oracle.constant("size", np.array(after, "int32"))
    operands = [oracle.activation(x, 0.1, 7), size]
    options = {"alignCorners": align_corners, "halfPixelCenters": not align_corners}
    shape = (len(x), *after, channels)
    expected = oracle.xnnpack("RESIZE_BILINEAR", operands, shape, 0.1, 7, 3, **options)
    height, width = (
        resize.bilinear_taps(*pair, align_corners=align_corners)
        for pair in zip(before, after, strict=True)
    )
    actual = resize.interpolate(x.astype("int32"), *height, *width)
    assert (np.asarray(actual) == expected).all()
    centered = resize.interpolate(x.astype("int32") - 7, *height, *width)
    assert (np.asarray(centered) == expected - 7).all()
