"""QUANTIZE and LEAKY_RELU against XNNPACK."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import quantize
from keras_qat.litert import Tensor
from tests.arithmetic import oracle

RATIOS = [2.0**-8, 0.00391, 0.01, 0.5, 1.0, 1.5, 127.0, 128.0]
RATIOS += oracle.scales(np.random.default_rng(0), 20, -7, 7).tolist()
SLOPES = [1e-2, 0.1, 0.2, 0.3, 1.0, 1.7, -0.25, -1.0, 2.0**-7]
# From the least zero point of the type.
ZERO_POINTS = [(0, 255), (255, 0), (131, 120)]


def every(dtype):
    """Returns all values of a type, and one more than a register holds."""
    low, high = limits(dtype)
    return np.append(np.arange(low, high + 1), low).astype(dtype)


def limits(dtype):
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("seed", range(12))
def test_quantize_equals_xnnpack(dtype, seed):
    rng = np.random.default_rng(seed)
    scale, (low, high) = oracle.scales(rng, 1, -12, 6)[0], limits(dtype)
    zero_point = (low, high, int(rng.integers(low, high)))[seed % 3]
    near_ties = np.float32(rng.integers(-500, 500, 5003)) * np.float32(0.5) * scale
    x = np.concatenate([near_ties, rng.standard_normal(5000) * scale * 60]).astype("float32")
    operands = [(Tensor("x", x.shape, "float32"), x)]
    expected = oracle.xnnpack("QUANTIZE", operands, x.shape, scale, zero_point, dtype=dtype)
    assert (np.asarray(quantize.quantize(x, scale, zero_point, low, high)) == expected).all()


def test_quantize_saturates_like_xnnpack():
    x = np.array([np.inf, -np.inf, 3e38, -3e38, 1e9, -1e9], "float32")
    operands = [(Tensor("x", x.shape, "float32"), x)]
    expected = oracle.xnnpack("QUANTIZE", operands, x.shape, 1e-3, 7)
    assert expected.tolist() == [127, -128] * 3
    assert (np.asarray(quantize.quantize(x, 1e-3, 7, *oracle.INT8)) == expected).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_rescale_equals_xnnpack(dtype, ratio):
    q, (low, high) = every(dtype), limits(dtype)
    sx, sy = np.float32(ratio * 0.75), np.float32(0.75)
    for zeros in ZERO_POINTS:
        zx, zy = (int(z) + low for z in zeros)
        operands = [oracle.activation(q, sx, zx)]
        expected = oracle.xnnpack("QUANTIZE", operands, q.shape, sy, zy, 2)
        actual = quantize.rescale(q.astype("int32"), sx, zx, sy, zy, low, high)
        assert (np.asarray(actual) == expected).all()


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("slope", SLOPES)
def test_leaky_relu_equals_xnnpack(dtype, slope):
    q, (low, high) = every(dtype), limits(dtype)
    for ratio in RATIOS:
        sx, sy = np.float32(ratio * 0.75), np.float32(0.75)
        if not 2.0**-8 <= sx / sy * np.float32(abs(slope)) <= 127:
            continue
        for zeros in ZERO_POINTS:
            zx, zy = (int(z) + low for z in zeros)
            operands = [oracle.activation(q, sx, zx)]
            expected = oracle.xnnpack("LEAKY_RELU", operands, q.shape, sy, zy, 2, alpha=slope)
            actual = quantize.leaky_relu(q.astype("int32"), sx, zx, slope, sy, zy, low, high)
            assert (np.asarray(actual) == expected).all()
