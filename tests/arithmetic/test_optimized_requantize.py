"""Requantization against LiteRT's optimized kernels."""

import ml_dtypes
import numpy as np
import pytest

from keras_qat.arithmetic.optimized import requantize
from keras_qat.arithmetic.rules import RULES
from keras_qat.litert import Tensor
from keras_qat.litert.format.operators import declaration_of
from tests.arithmetic import oracle
from tests.arithmetic.test_requantize import BATCH, SCALES

WINDOW = {"padding": "VALID", "strideH": 1, "strideW": 1}
CONV = {**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1}


@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22])
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 24, 61])
def test_requantize_transpose_conv_equals_the_optimized_kernel(choose, spread, channels):
    rng = np.random.default_rng(spread)
    x = oracle.int8s(rng, (BATCH, 1))
    w = rng.integers(-127, 128, channels, "int8")
    bias = rng.integers(-spread, spread, channels, dtype="int32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    acc = (x.astype("int32") - zx) * w.astype("int32") + bias
    sx, sw, sy = choose(rng)
    sw = sw[:channels]
    shape = (BATCH, 1, 1, channels)
    operands = [
        (Tensor("shape", (4,), "int32"), np.array(shape, "int32")),
        oracle.constant("w", w[:, None, None, None], sw),
        oracle.activation(x[:, :, None, None], sx, zx),
        oracle.constant("b", bias, sx * sw),
    ]
    options = {**WINDOW, "dtype": "int8"}
    expected = oracle.optimized("TRANSPOSE_CONV", operands, shape, sy, zy, 3, **options)
    actual = requantize.requantize_transpose_conv(acc, sx, sw, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected.reshape(acc.shape)).all()


def conv(x, w, b):
    return "CONV_2D", [x, w((-1, 1, 1, 1), 0), b], 7


def depthwise(x, w, b):
    return "DEPTHWISE_CONV_2D", [x, w((1, 1, 1, -1), 3), b], 7


def dense(x, w, b):
    return "FULLY_CONNECTED", [x, w((-1, 1), 0), b], 12


@pytest.mark.one_in(5)
@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22])
@pytest.mark.parametrize("channels", [1, 7, 24, 61])
@pytest.mark.parametrize("operator", [conv, depthwise, dense])
def test_requantize_with_weights_of_4_bits_equals_the_optimized_kernel(
    operator, choose, spread, channels
):
    rng = np.random.default_rng(spread)
    x = oracle.int8s(rng, (BATCH, 1))
    w = rng.integers(-7, 8, channels).astype("int8")
    bias = rng.integers(-spread, spread, channels, dtype="int32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    acc = (x.astype("int32") - zx) * w.astype("int32") + bias
    sx, sw, sy = choose(rng)
    sw = sw[:channels]
    int4 = w.astype(ml_dtypes.int4)
    code, operands, version = operator(
        oracle.activation(x[:, :, None, None], sx, zx),
        lambda shape, axis: oracle.constant("w", int4.reshape(shape), sw, axis),
        oracle.constant("b", bias, sx * sw),
    )
    options = {"keepNumDims": True} if operator is dense else {**CONV}
    options |= {"depthMultiplier": channels} if operator is depthwise else {}
    shape = (BATCH, 1, 1, channels)
    expected = oracle.optimized(code, operands, shape, sy, zy, version, **options)
    is_blocked = operator is depthwise
    rule = requantize.requantize_transpose_conv if is_blocked else requantize.requantize_half_up
    actual = rule(acc, sx, sw, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected.reshape(acc.shape)).all()


@pytest.mark.parametrize("choose", SCALES)
@pytest.mark.parametrize("spread", [2**7, 2**14, 2**22])
@pytest.mark.parametrize(("batch", "channels"), [(1, 15), (1, 16), (3, 9), (100, 24), (99, 61)])
def test_requantize_transpose_conv_uint8_equals_the_optimized_kernel(
    choose, spread, batch, channels
):
    rng = np.random.default_rng(spread)
    x, w = (oracle.integers(rng, "uint8", size) for size in ((batch, 1), channels))
    bias = rng.integers(-spread, spread, channels, dtype="int32")
    zx, zw, zy = (int(v) for v in rng.integers(0, 256, 3))
    acc = (x.astype("int32") - zx) * (w.astype("int32") - zw) + bias
    sx, sw, sy = choose(rng)
    shape = (batch, 1, 1, channels)
    operands = [
        (Tensor("shape", (4,), "int32"), np.array(shape, "int32")),
        oracle.constant("w", w[:, None, None, None], sw[0], 0, zw),
        oracle.activation(x[:, :, None, None], sx, zx),
        oracle.constant("b", bias, sx * sw[0]),
    ]
    options = {**WINDOW, "dtype": "uint8"}
    expected = oracle.optimized("TRANSPOSE_CONV", operands, shape, sy, zy, 3, **options)
    rule = requantize.requantize_transpose_conv_uint8
    actual = rule(acc, sx, sw[0], sy, zy, 0, 255)
    assert (np.asarray(actual) == expected.reshape(acc.shape)).all()


@pytest.mark.parametrize("inputs", [4, 5, 6])
def test_dense_weights_of_2_bits_round_as_their_rule(inputs):
    """XNNPACK takes weights that fill whole bytes; half up rounds otherwise."""
    rng = np.random.default_rng(inputs)
    x, w = oracle.int8s(rng, (3000, inputs)), rng.integers(-1, 2, (24, inputs))
    sx, sw, sy = np.float32(0.031), oracle.scales(rng, 24, -4, -2), np.float32(0.05)
    bias, zx, zy = rng.integers(-300, 300, 24, dtype="int32"), -3, 7
    operands = [
        oracle.activation(x, sx, zx),
        oracle.constant("w", w.astype(ml_dtypes.int2), sw, 0),
        oracle.constant("b", bias, sx * sw),
    ]
    kernels = oracle.xnnpack if inputs % 4 == 0 else oracle.optimized
    shape = (3000, 24)
    expected = kernels("FULLY_CONNECTED", operands, shape, sy, zy, 14, keepNumDims=False)
    name = declaration_of("FULLY_CONNECTED").rule(kernels.__name__, "int2")
    acc = ((x.astype("int32") - zx) @ w.T + bias).astype("int32")
    actual = RULES[name](acc, sx, sw, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()
