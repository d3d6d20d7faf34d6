"""The rules of 16-bit activations against LiteRT's reference and optimized kernels."""

import numpy as np
import pytest

from keras_qat.arithmetic import elementwise
from keras_qat.arithmetic.int16 import elementwise as blocks
from keras_qat.arithmetic.int16 import functions, requantize
from keras_qat.arithmetic.int16.quantize import quantize_in_blocks
from keras_qat.arithmetic.multiply import multiply
from keras_qat.arithmetic.pooling import mean
from keras_qat.arithmetic.prelu import leaky_relu
from keras_qat.arithmetic.requantize import quantize, requantize_float64, rescale
from keras_qat.backend import float64
from keras_qat.litert import Tensor
from tests.arithmetic import oracle

INT16 = (-32768, 32767)
WINDOW = {"padding": "VALID", "strideH": 1, "strideW": 1}
CONV = {**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1}
KERNELS = [oracle.reference, oracle.optimized]


def int16s(rng, shape):
    x = rng.integers(-32768, 32768, shape, "int16")
    return np.where(rng.random(shape) < 0.5, (x >> 6).astype("int16"), x)


def compare(kernels, code, operands, shape, sy, actual, version, **options):
    expected = kernels(code, operands, shape, sy, 0, version, dtype="int16", **options)
    np.testing.assert_array_equal(np.asarray(actual).reshape(shape), expected)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense", "transposed"])
@pytest.mark.parametrize("spread", [2**9, 2**22, 2**30])
def test_requantize_wide_equals_the_kernels(kernels, kind, spread):
    rng = np.random.default_rng(spread)
    channels, batch = 19, 400
    x, w = int16s(rng, (batch, 1)), rng.integers(-127, 128, channels, "int8")
    bias = rng.integers(-spread, spread, channels, dtype="int64")
    sx, sw = np.float32(0.0003), oracle.scales(rng, channels, -9, -4)
    sy = np.float32(sx * sw.mean() * (2.0**22 + spread) / 40000)
    code, shape, axis, version = {
        "conv": ("CONV_2D", (-1, 1, 1, 1), 0, 4),
        "depthwise": ("DEPTHWISE_CONV_2D", (1, 1, 1, -1), 3, 5),
        "dense": ("FULLY_CONNECTED", (-1, 1), 0, 12),
        "transposed": ("TRANSPOSE_CONV", (-1, 1, 1, 1), 0, 3),
    }[kind]
    options = {"dense": {"keepNumDims": True}, "transposed": WINDOW}.get(kind, CONV)
    if kind == "depthwise":
        options = {**CONV, "depthMultiplier": channels}
    made = (batch, 1, 1, channels)
    operands = [
        oracle.activation(x[:, :, None, None], sx, 0),
        oracle.constant("w", w.reshape(shape), sw, axis),
        oracle.constant("b", bias, sx * sw),
    ]
    if kind == "transposed":
        size = oracle.constant("shape", np.array(made, "int32"))
        operands = [size, operands[1], operands[0], operands[2]]
    is_dense = kind == "dense"
    rule = requantize_float64 if is_dense else requantize.requantize_wide
    with float64():
        acc = x.astype("int64") * w.astype("int64") + bias
        actual = np.asarray(rule(acc, sx, sw, sy, 0, *INT16))
    compare(kernels, code, operands, made, sy, actual, version, **options)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("shape", [(7, 6, 16), (3, 200_003)])
@pytest.mark.parametrize("ratio", [1.0, 0.3, 60.0])
def test_elementwise_int16_equals_the_kernels(kernels, code, shape, ratio):
    rng = np.random.default_rng(0)
    a, b = int16s(rng, shape), int16s(rng, shape)
    sa, sb, sy = (np.float32(s) for s in (0.00031, 0.00031 * ratio, 0.00047))
    is_reference = kernels is oracle.reference
    rule = {
        ("ADD", True): elementwise.add,
        ("SUB", True): elementwise.subtract,
        ("ADD", False): blocks.add_in_blocks,
        ("SUB", False): elementwise.subtract,
    }.get((code, is_reference), multiply)
    if code == "MUL":
        sy = np.float32(sa * sb * 20000)
    options = {} if code == "MUL" else {"potScaleInt16": False}
    headroom = {"headroom": 15} if rule in (elementwise.add, elementwise.subtract) else {}
    actual = rule(a.astype("int32"), sa, 0, b.astype("int32"), sb, 0, sy, 0, *INT16, **headroom)
    operands = [oracle.activation(a, sa, 0), oracle.activation(b, sb, 0)]
    version = {"ADD": 3, "SUB": 5, "MUL": 4}[code]
    compare(kernels, code, operands, shape, sy, actual, version, **options)


@pytest.mark.parametrize("kernels", KERNELS)
def test_add_int16_of_a_scalar_equals_the_kernels(kernels):
    a, zero = int16s(np.random.default_rng(0), (7, 32)), np.zeros((), "int16")
    sa, sy = np.float32(0.00031), np.float32(0.00022)
    rule = blocks.add_in_blocks(a.astype("int32"), sa, 0, np.int32(0), sa, 0, sy, 0, *INT16)
    operands = [oracle.activation(a, sa, 0), oracle.constant("zero", zero, sa)]
    compare(kernels, "ADD", operands, a.shape, sy, rule, 3, potScaleInt16=False)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [2.0**-12, 2.0**-11, 0.00031, 0.000271, 0.002, 5.0, 1e-6])
@pytest.mark.parametrize("code", ["LOGISTIC", "TANH"])
def test_functions_int16_equal_the_kernels(kernels, code, scale):
    x = np.arange(-32768, 32768).astype("int16")[None]
    names = {"LOGISTIC": "logistic", "TANH": "tanh"}
    prefix = "" if kernels is oracle.reference else "optimized_"
    actual = getattr(functions, prefix + names[code])(x.astype("int32"), np.float32(scale))
    compare(kernels, code, [oracle.activation(x, scale, 0)], x.shape, 2.0**-15, actual, 3)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("scale", [1e-6, 0.00031, 5.0])
@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_softmax_int16_equals_the_kernels(kernels, scale, classes):
    x = int16s(np.random.default_rng(0), (60, classes))
    actual = functions.softmax(x.astype("int32"), np.float32(scale))
    operands = [oracle.activation(x, scale, 0)]
    compare(kernels, "SOFTMAX", operands, x.shape, 2.0**-15, actual, 3, beta=1.0)


@pytest.mark.parametrize("scale", [5.01, 1e3, 1e9])
def test_functions_int16_of_larger_scales_are_those_of_large_values(scale):
    x = np.array([[-32768, 32767]], "int32")
    assert np.asarray(functions.optimized_logistic(x, np.float32(scale))).tolist() == [[1, 32767]]
    assert np.asarray(functions.optimized_tanh(x, np.float32(scale))).tolist() == [[-32767, 32767]]
    assert np.asarray(functions.softmax(x, np.float32(scale))).tolist() == [[2, 32766]]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("slope", [0.0, 0.1, 0.9])
def test_leaky_relu_int16_equals_the_kernels(kernels, slope):
    x = int16s(np.random.default_rng(0), (1, 30000))
    sx, sy = np.float32(0.00031), np.float32(0.00027)
    actual = leaky_relu(x.astype("int32"), sx, 0, np.float32(slope), sy, 0, *INT16)
    operands = [oracle.activation(x, sx, 0)]
    compare(kernels, "LEAKY_RELU", operands, x.shape, sy, actual, 2, alpha=float(slope))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [4, 49, 600])
def test_mean_int16_equals_the_kernels(kernels, size):
    x = int16s(np.random.default_rng(0), (50, size, 1, 7))
    sx, sy = np.float32(0.00031), np.float32(0.00017)
    total = x.astype("int32").sum(axis=(1, 2))
    actual = mean(total, size, sx, 0, sy, 0, *INT16)
    axes = oracle.constant("axes", np.array([1, 2], "int32"))
    operands = [oracle.activation(x, sx, 0), axes]
    compare(kernels, "MEAN", operands, total.shape, sy, actual, 3, keepDims=False)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("source", "target"), [("int16", "int16"), ("int8", "int16"), ("int16", "int8")]
)
def test_rescale_int16_equals_the_kernels(kernels, source, target):
    rng = np.random.default_rng(0)
    x = int16s(rng, (1, 30000)) if source == "int16" else oracle.int8s(rng, (1, 30000))
    sx, zx = (0.00031, 0) if source == "int16" else (0.07, 5)
    sy, zy = (0.00047, 0) if target == "int16" else (0.09, -7)
    limits = np.iinfo(target)
    scales = np.float32(sx), zx, np.float32(sy), zy
    actual = rescale(x.astype("int32"), *scales, limits.min, limits.max)
    operands = [oracle.activation(x, sx, zx)]
    expected = kernels("QUANTIZE", operands, x.shape, sy, zy, 2, dtype=target)
    np.testing.assert_array_equal(np.asarray(actual), expected)


@pytest.mark.parametrize("kernels", KERNELS)
def test_quantize_int16_equals_the_kernels(kernels):
    halves = np.arange(7) + 0.5  # in the elements that remain after the blocks of 8
    values = np.random.default_rng(0).normal(size=60000) * 4
    x = np.append(values, halves * np.float32(0.00031)).astype("float32")[None]
    rule = quantize if kernels is oracle.reference else quantize_in_blocks
    actual = rule(x, np.float32(0.00031), 0, *INT16)
    operands = [(Tensor("x", x.shape, "float32"), x)]
    expected = kernels("QUANTIZE", operands, x.shape, 0.00031, 0, 2, dtype="int16")
    np.testing.assert_array_equal(np.asarray(actual), expected)


def test_add_in_blocks_takes_the_elements_that_remain_alone():
    """The pairs of integers of which a block makes another sum are the last ones of the tensor."""
    rng = np.random.default_rng(0)
    a, b = int16s(rng, 960_000), int16s(rng, 960_000)
    scales = np.float32(0.00031), np.float32(0.000093), np.float32(0.00047)

    def added(rule, a, b, **options):
        sa, sb, sy = scales
        operands = a.astype("int32"), sa, 0, b.astype("int32"), sb, 0
        return np.asarray(rule(*operands, sy, 0, *INT16, **options))

    in_blocks = added(blocks.add_in_blocks, a, b)
    (place, *_) = np.flatnonzero(in_blocks != added(elementwise.add, a, b, headroom=15))
    a, b = (np.repeat(each[place], 17)[None] for each in (a, b))
    operands = [oracle.activation(a, scales[0], 0), oracle.activation(b, scales[1], 0)]
    actual = added(blocks.add_in_blocks, a, b)
    assert len(np.unique(actual)) == 2
    compare(oracle.optimized, "ADD", operands, a.shape, scales[2], actual, 3, potScaleInt16=False)
