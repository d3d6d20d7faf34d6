"""HARD_SWISH against LiteRT's reference kernel, on all int8 values."""

import numpy as np
import pytest

from keras_qat.arithmetic.hard_swish import LARGEST_SCALE_RATIO, hard_swish_table
from keras_qat.errors import LiteRTFormatError
from tests.arithmetic import oracle

EVERY = np.arange(-128, 128, dtype="int8")[None]


def reference(scale, zero_point, output_scale, output_zero_point):
    operands = [oracle.activation(EVERY, scale, zero_point)]
    return oracle.reference("HARD_SWISH", operands, EVERY.shape, output_scale, output_zero_point)


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0, 2.5, 60.0, 127.9])
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 0.003, 3 / 256, 0.02, 0.05, 0.7, 30.0, 1e4])
def test_hard_swish_table_equals_the_reference_kernel(scale, ratio):
    rng = np.random.default_rng(int(scale * ratio * 1e6) % 2**31)
    for _ in range(4):
        scales = np.float32(scale * rng.uniform(0.9, 1.0)), np.float32(scale / ratio)
        zero_points = [int(v) for v in rng.integers(-128, 128, 2)]
        grids = scales[0], zero_points[0], scales[1], zero_points[1]
        actual = np.asarray(hard_swish_table(*grids, low=-128, high=127))
        assert (actual == reference(*grids)[0]).all(), grids


@pytest.mark.parametrize("ratio", [2.0**-7, 2.0**-8.5, 2.0**-9.5, 2.0**-14])
def test_hard_swish_table_with_a_far_too_large_output_scale(ratio):
    """Beyond 16 bits the kernel truncates its mask, and values near 0 become 1 or -1."""
    grids = np.float32(0.05), 3, np.float32(0.05 / ratio), -7
    actual = np.asarray(hard_swish_table(*grids, low=-128, high=127))
    assert (actual == reference(*grids)[0]).all()


def test_hard_swish_kernel_refuses_a_larger_ratio():
    scale = np.float32(0.01)
    reference(scale * np.float32(LARGEST_SCALE_RATIO * 0.999), 0, scale, 0)
    with pytest.raises(LiteRTFormatError):
        reference(scale * np.float32(LARGEST_SCALE_RATIO * 1.001), 0, scale, 0)
