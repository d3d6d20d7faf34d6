"""MEAN against XNNPACK."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import mean
from tests.arithmetic import oracle

pytestmark = oracle.on_x86

CASES = [
    ((300, 7, 7, 9), (1, 2)),
    ((50, 2, 3, 17), (1, 2)),
    ((40, 3, 5, 33), (1, 2, 3)),
    ((40, 3, 5, 33), (3,)),
    ((200, 255), (1,)),
    ((100, 31, 5), (1,)),
    ((100, 8, 19), (2,)),
    ((50, 6, 7, 8), (1,)),
    ((50, 6, 7, 8), (2,)),
    ((2, 400, 410, 1), (1, 2)),
]
SCALES = [(0.1, 0.1), (0.3, 0.07), (1e-3, 2.0), (0.05, 0.025), (0.7, 0.1)]
ZERO_POINTS = [(0, 255), (255, 0), (3, 200), (131, 77), (128, 128)]  # from the least of the type


def many(rng, dtype, shape):
    """Draws integers next to the greatest of a type, so that float32 rounds long sums."""
    return (np.iinfo(dtype).max - rng.integers(0, 20, shape)).astype(dtype)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("draw", [oracle.integers, many])
def test_mean_equals_xnnpack(dtype, shape, axes, keep, draw):
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    n = int(np.prod([shape[axis] for axis in axes]))
    x = draw(np.random.default_rng(0), dtype, shape)
    sums = x.astype("int32").sum(axes, keepdims=keep)
    for scales, zeros in zip(SCALES, ZERO_POINTS, strict=True):
        sx, sy = np.array(scales, "float32")
        zx, zy = (low + zero for zero in zeros)
        operands = [oracle.activation(x, sx, zx), oracle.constant("a", np.array(axes, "int32"))]
        expected = oracle.xnnpack("MEAN", operands, sums.shape, sy, zy, 2, keepDims=keep)
        actual = mean.mean(sums, n, sx, zx, sy, zy, low, high)
        assert (np.asarray(actual) == expected).all()
