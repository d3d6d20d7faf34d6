"""Products of two tensors against LiteRT's reference kernels."""

import numpy as np
import pytest

from keras_qat.arithmetic import fixed_point, multiply
from keras_qat.arithmetic.requantize import requantize
from tests.arithmetic import oracle

EVERY = np.arange(-128, 128, dtype="int8")
A, B = (np.ascontiguousarray(x)[None] for x in np.meshgrid(EVERY, EVERY))
SCALES = [
    (0.5, 0.5, 0.5),
    (1.0, 3.0, 7.0),
    (0.3, 0.7, 0.001),  # a left shift
    (5.0, 1e-12, 5.0),  # too small a ratio for a multiplier
    (1e-4, 1e-4, 10.0),
    *[tuple(oracle.scales(np.random.default_rng(seed), 3, -6, 2)) for seed in range(12)],
]


@pytest.mark.parametrize("scales", SCALES)
def test_multiply_equals_the_reference_kernel(scales):
    sa, sb, sy = np.array(scales, "float32")
    za, zb, zy = (int(v) for v in np.random.default_rng(0).integers(-128, 128, 3))
    operands = [oracle.activation(A, sa, za), oracle.activation(B, sb, zb)]
    expected = oracle.reference("MUL", operands, A.shape, sy, zy, 2)
    a, b = A.astype("int32"), B.astype("int32")
    actual = multiply.multiply(a, sa, za, b, sb, zb, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


def test_multiply_broadcasts_and_clips():
    a, b = np.array([[1], [10]], "int32"), np.array([10, 20], "int32")
    actual = multiply.multiply(a, 1.0, 0, b, 1.0, 0, 1.0, 0, 15, 112)
    assert np.asarray(actual).tolist() == [[15, 20], [100, 112]]


@pytest.mark.parametrize("seed", range(12))
def test_product_multiplier_equals_that_of_batch_matmul(seed):
    rng = np.random.default_rng(seed)
    sa, sb = oracle.scales(rng, 2, -6, 2)
    sy = np.float32(sa * sb * rng.uniform(1, 4))
    za, zb, zy = (int(v) for v in rng.integers(-128, 128, 3))
    a, b = oracle.int8s(rng, (2, 40, 3)), oracle.int8s(rng, (2, 3, 50))
    operands = [oracle.activation(a, sa, za), oracle.activation(b, sb, zb)]
    shape = (2, 40, 50)
    expected = oracle.reference("BATCH_MATMUL", operands, shape, sy, zy, 2)
    sums = (a.astype("int32") - za) @ (b.astype("int32") - zb)
    scaling = multiply.product_multiplier(sa, sb, sy)
    assert (np.asarray(requantize(sums, *scaling, zy, *oracle.INT8)) == expected).all()


def test_product_multiplier_rounds_the_product_of_the_scales():
    """With these scales the exact product would give a different multiplier."""
    sa, sb, sy = np.float32(0.1), np.float32(0.7), np.float32(0.3)
    expected = oracle.quantize_multiplier(float(np.float64(sa * sb) / np.float64(sy)))
    actual = multiply.product_multiplier(sa, sb, sy)
    assert tuple(int(value) for value in actual) == expected
    assert tuple(int(value) for value in fixed_point.conv_multiplier(sa, sb, sy)) != expected
