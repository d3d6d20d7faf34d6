"""Requantization of sums against XNNPACK."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import requantize
from tests.arithmetic import oracle
from tests.arithmetic.test_requantize import SCALES

pytestmark = oracle.on_x86

BATCH, CHANNELS = 100, 61  # not multiples of a register's width
WINDOW = {"padding": "VALID", "strideH": 1, "strideW": 1}
CONV = {**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1}


def conv(x, w, b):
    return "CONV_2D", [x, w((-1, 1, 1, 1), 0), b], 3, CONV


def depthwise(x, w, b):
    return (
        "DEPTHWISE_CONV_2D",
        [x, w((1, 1, 1, -1), 3), b],
        3,
        {**CONV, "depthMultiplier": CHANNELS},
    )


def dense(x, w, b):
    return "FULLY_CONNECTED", [x, w((-1, 1), 0), b], 12, {"keepNumDims": True}


def transposed(x, w, b):
    shape = oracle.constant("shape", np.array([BATCH, 1, 1, CHANNELS], "int32"))
    return "TRANSPOSE_CONV", [shape, w((-1, 1, 1, 1), 0), x, b], 3, WINDOW


OPERATORS = [conv, depthwise, dense, transposed]


def any_accumulators(rng, spread):
    """Returns one input, one weight per channel and a bias, which give any accumulator."""
    x = oracle.int8s(rng, (BATCH, 1))
    w = rng.integers(-127, 128, CHANNELS, "int8")
    bias = rng.integers(-spread, spread, CHANNELS, dtype="int32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    return x, w, bias, zx, zy, (x.astype("int32") - zx) * w.astype("int32") + bias


def limited(choose, rng):
    """Returns scales whose ratios XNNPACK takes."""
    sx, sw, sy = choose(rng)
    sw = np.maximum(sw[:CHANNELS], np.float32(2.0**-31) * sy / sx)
    return sx, np.minimum(sw, np.float32(200) * sy / sx), sy


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22, 2**30])
def test_requantize_float32_equals_xnnpack(operator, per_channel, choose, spread):
    rng = np.random.default_rng(spread)
    x, w, bias, zx, zy, acc = any_accumulators(rng, spread)
    sx, sw, sy = limited(choose, rng)
    sw = sw if per_channel else sw[:1]
    code, operands, version, options = operator(
        oracle.activation(x[:, :, None, None], sx, zx),
        lambda shape, axis: oracle.constant("w", w.reshape(shape), sw, axis),
        oracle.constant("b", bias, sx * sw),
    )
    shape = (BATCH, 1, 1, CHANNELS)
    expected = oracle.xnnpack(code, operands, shape, sy, zy, version, **options)
    actual = requantize.requantize_float32(acc, sx, sw, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected.reshape(acc.shape)).all()


@pytest.mark.parametrize("operator", [conv, dense, transposed])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("inner", [1, 7, 300])
def test_requantize_float32_of_sums_equals_xnnpack(operator, dtype, inner):
    rng = np.random.default_rng(inner)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    zx, zw, zy = (int(v) for v in rng.integers(low, high + 1, 3))
    zw = zw if dtype == "uint8" else 0
    x, w = (
        oracle.integers(rng, dtype, (BATCH, inner)),
        oracle.integers(rng, dtype, (CHANNELS, inner)),
    )
    bias = rng.integers(-1000, 1000, CHANNELS, dtype="int32")
    sx, sw = oracle.scales(rng, 2)
    sy = np.float32(sx * sw * inner**0.5 * 90)
    code, operands, version, options = operator(
        oracle.activation(x[:, None, None], sx, zx),
        lambda shape, axis: oracle.constant("w", w.reshape(*shape[:-1], inner), sw, axis, zw),
        oracle.constant("b", bias, sx * sw),
    )
    shape, version = (BATCH, 1, 1, CHANNELS), version if dtype == "int8" else 1
    expected = oracle.xnnpack(code, operands, shape, sy, zy, version, dtype=dtype, **options)
    acc = (x.astype("int32") - zx) @ (w.astype("int32") - zw).T + bias
    actual = requantize.requantize_float32(acc, sx, sw, sy, zy, low, high)
    assert (np.asarray(actual) == expected.reshape(acc.shape)).all()


def test_requantize_float32_equals_xnnpack_with_a_fused_activation():
    rng = np.random.default_rng(0)
    x, w, bias, zx, _, acc = any_accumulators(rng, 2**14)
    operands = [
        oracle.activation(x, 0.1, zx),
        oracle.constant("w", w[:, None], 0.01),
        oracle.constant("b", bias, 0.001),
    ]
    options = {"keepNumDims": True, "fusedActivationFunction": "RELU6"}
    expected = oracle.xnnpack("FULLY_CONNECTED", operands, acc.shape, 0.05, -100, 4, **options)
    assert {-100, 20} < set(expected.ravel().tolist())
    actual = requantize.requantize_float32(acc, 0.1, 0.01, 0.05, -100, -100, 20)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize("inner", [1, 7, 300])
def test_requantize_float32_equals_xnnpack_on_a_product_with_a_constant(inner):
    rng = np.random.default_rng(inner)
    sx, sw = oracle.scales(rng, 2)
    sy = np.float32(sx * sw * inner**0.5 * 90)
    a, b = oracle.int8s(rng, (2, 33, inner)), oracle.int8s(rng, (2, inner, CHANNELS))
    operands = [oracle.activation(a, sx, 9), oracle.constant("b", b, sw)]
    shape = (2, 33, CHANNELS)
    expected = oracle.xnnpack("BATCH_MATMUL", operands, shape, sy, -3, 2)
    acc = (a.astype("int32") - 9) @ b.astype("int32")
    actual = requantize.requantize_float32(acc, sx, sw, sy, -3, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


def test_requantize_float32_of_float_accumulators():
    acc = np.random.default_rng(0).integers(-(2**24), 2**24, 1000, "int32")
    scales = 0.1, 0.01, 300.0
    expected = requantize.requantize_float32(acc, *scales, 3, *oracle.INT8)
    actual = requantize.requantize_float32(acc.astype("float32"), *scales, 3, *oracle.INT8)
    assert (np.asarray(actual) == np.asarray(expected)).all()
