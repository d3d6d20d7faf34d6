"""PRELU against LiteRT's reference kernel, on all pairs of a value and a slope."""

import numpy as np
import pytest

from keras_qat.arithmetic.prelu import prelu
from tests.arithmetic import oracle

VALUES = np.broadcast_to(np.arange(-128, 128, dtype="int8")[:, None], (256, 255))[None, None]
ALPHA = np.arange(-127, 128, dtype="int8")


@pytest.mark.parametrize("seed", range(12))
def test_prelu_equals_the_reference_kernel(seed):
    rng = np.random.default_rng(seed)
    input_scale, alpha_scale = oracle.scales(rng, 2, -8, 3)
    output_scale = np.float32(input_scale * rng.uniform(0.2, 3))
    zero_points = [int(v) for v in rng.integers(-128, 128, 2)]
    values = np.ascontiguousarray(VALUES)
    operands = [
        oracle.activation(values, input_scale, zero_points[0]),
        oracle.constant("alpha", ALPHA.reshape(1, 1, -1), alpha_scale),
    ]
    expected = oracle.reference("PRELU", operands, values.shape, output_scale, zero_points[1])
    q, slopes = values.astype("int32"), ALPHA.astype("int32")
    grids = (input_scale, zero_points[0], slopes, alpha_scale, output_scale, zero_points[1])
    assert (np.asarray(prelu(q, *grids, *oracle.INT8)) == expected).all()


@pytest.mark.parametrize("alpha_scale", [1e-20, 1e-30])
def test_prelu_with_a_slope_of_zero_takes_any_scale(alpha_scale):
    q = np.array([-100, 0, 100], "int32")
    assert np.asarray(prelu(q, 0.1, 0, 0, alpha_scale, 0.2, 0, *oracle.INT8)).tolist() == [0, 0, 50]
