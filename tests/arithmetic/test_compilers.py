"""All rules give equal bits in every compiler, with scales as arguments and as constants."""

import contextlib
import functools
import itertools
from unittest import mock

import keras
import numpy as np
import pytest

from keras_qat import backend
from keras_qat.arithmetic import (
    arm64,
    elementwise,
    exact_float,
    fixed_point,
    log_softmax,
    multiply,
    normalize,
    pooling,
    requantize,
    resize,
    softmax,
    tables,
)
from keras_qat.arithmetic.optimized import requantize as optimized_requantize
from keras_qat.arithmetic.optimized import softmax as optimized_softmax
from keras_qat.arithmetic.xnnpack import elementwise as xnnpack_elementwise
from keras_qat.arithmetic.xnnpack import mean as xnnpack_mean
from keras_qat.arithmetic.xnnpack import quantize as xnnpack_quantize
from keras_qat.arithmetic.xnnpack import requantize as xnnpack_requantize
from keras_qat.backend import rules, tracing
from tests.arithmetic import oracle

pytestmark = pytest.mark.grappler

RNG = np.random.default_rng(0)
Q, R = RNG.integers(-128, 128, (2, 400, 10), "int32")
ACC = RNG.integers(-(2**20), 2**20, (400, 64), "int32")
SUMS = RNG.integers(-(2**30), 2**30, (400, 64), "int32") >> np.arange(64, dtype="int32") % 20
MULTIPLIER, SHIFT = RNG.integers(2**30, 2**31, 64, "int32"), RNG.integers(-15, -8, 64, "int32")
SX, SY = np.float32(0.0372911), np.float32(0.7134217)
SW = oracle.scales(RNG, 64)
SLOPE = np.float32(0.3)
MANY = oracle.scales(RNG, 20_000)
FLOATS = (RNG.integers(-300, 300, 20_000) * np.float32(0.5) * SX).astype("float32")


def scale_ratio(*scales):
    """Returns the double, since its last bits seldom change integer results."""
    with backend.float64():
        return exact_float.scale_ratio(*scales)


def mean_xnnpack(sums, *grids_and_limits):
    return xnnpack_mean.mean(sums, 49, *grids_and_limits)


def mean_arm64(sums, *grids_and_limits):
    return arm64.mean(sums, 49, *grids_and_limits)


PIXELS = RNG.integers(0, 256, (60, 17, 17, 3), "int32")
TAPS = resize.bilinear_float_taps(17, 40)


def resized(q):
    return resize.interpolate_in_float(q, *TAPS, *TAPS)[:, :17, :17]


RULE = normalize.Normalization(10, "layer", 1e-3)
CLASSES = log_softmax.LogSoftmax(10)


def layer_normalized(q, input_scale, output_scale):
    options = {"axes": (1,), "normalization": RULE, "low": -128, "high": 127}
    options |= {"multiply": multiply.multiply, "subtract": elementwise.subtract}
    middle = input_scale, 2, np.float32(0.3) * input_scale
    return normalize.normalize(q, input_scale, 5, *middle, output_scale, 3, **options)


def logarithms(q, input_scale, output_scale):
    exponentials, steps, logs = log_softmax.log_softmax_tables(
        input_scale, output_scale, rule=CLASSES
    )
    options = {"rule": CLASSES, "low": -128, "high": 127}
    return log_softmax.log_softmax(q, exponentials, steps, logs, 127, **options)


FUNCTIONS = {
    "tanh": keras.ops.tanh,
    "logistic": tables.logistic,
    "erf_gelu": tables.erf_gelu,
    "tanh_gelu": tables.tanh_gelu,
    "elu": tables.elu,
}


def tabulated(function):
    """Makes a rule of the output's scale, widened away from ties, and of its table."""
    free = tables.Table(function, "output", -128, 127)
    limits = {"function": function, "low": -128, "high": 127}

    def table(scale, *grid):
        scale = tables.away_from_ties(scale, *grid, tables=(free,))
        return scale, tables.operator_table(*grid, scale, 3, **limits)

    return table


TABLES = {
    f"{name}_table": (tabulated(function), np.float32(0.03137), SX, 5)
    for name, function in FUNCTIONS.items()
}
CASES = {
    "scale_ratio": (scale_ratio, SX, MANY, SY),
    "conv_multiplier": (fixed_point.conv_multiplier, SX, MANY, SY),
    "scale_float32": (xnnpack_requantize.scale_float32, SX, MANY, SY),
    "requantize": (requantize.requantize, ACC, MULTIPLIER, SHIFT, 3, -128, 127),
    "requantize_transpose_conv": (
        optimized_requantize.requantize_transpose_conv,
        ACC[:, :61],
        SX,
        SW[:61],
        SY,
        3,
        -128,
        127,
    ),
    "requantize_float64": (requantize.requantize_float64, ACC, SX, SW, SY, 3, -128, 127),
    "requantize_float32": (xnnpack_requantize.requantize_float32, SUMS, SX, SW, SY, 3, -128, 127),
    "quantize": (requantize.quantize, FLOATS, SX, 3, -128, 127),
    "rescale": (requantize.rescale, Q, SX, 5, SY, -7, -128, 127),
    "add": (elementwise.add, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "subtract": (elementwise.subtract, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "add_xnnpack": (xnnpack_elementwise.add, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "subtract_xnnpack": (xnnpack_elementwise.subtract, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "multiply_xnnpack": (xnnpack_elementwise.multiply, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "quantize_xnnpack": (xnnpack_quantize.quantize, FLOATS, SX, 3, -128, 127),
    "rescale_xnnpack": (xnnpack_quantize.rescale, Q, SX, 5, SY, -7, -128, 127),
    "leaky_relu_xnnpack": (xnnpack_quantize.leaky_relu, Q, SX, 5, SLOPE, SY, -7, -128, 127),
    "mean_xnnpack": (mean_xnnpack, SUMS, SX, 5, SY, 2, -128, 127),
    "requantize_half_up": (
        optimized_requantize.requantize_half_up,
        *(ACC, SX, SW, SY, 3, -128, 127),
    ),
    "requantize_transpose_conv_uint8": (
        optimized_requantize.requantize_transpose_conv_uint8,
        *(ACC[:61, :61], SX, SW[0], SY, 3, 0, 255),
    ),
    "requantize_half_up_arm64": (arm64.requantize_half_up, ACC, SX, SW, SY, 3, -128, 127),
    "multiply_arm64": (arm64.multiply, Q, SX, 5, R, SY, 2, SY, -7, -128, 127),
    "mean_arm64": (mean_arm64, SUMS, SX, 5, SY, 2, -128, 127),
    "softmax_arm64": (arm64.softmax, R, SX),
    "average": (pooling.average, ACC, 49),
    "mean": (lambda q, *rest: pooling.mean(q, 49, *rest), ACC, SX, 5, SY, 2, -128, 127),
    "softmax": (softmax.softmax, Q, SX),
    "softmax_optimized": (optimized_softmax.softmax, R, SX),
    "resized": (resized, PIXELS),
    "layer_normalized": (layer_normalized, Q, SX, SX),
    "logarithms": (logarithms, Q, SX, SX),
}
EVERY = {**CASES, **TABLES}


def tensorflow_graph(function, *arrays):
    import tensorflow as tf

    return tf.function(function, autograph=False)(*map(tf.constant, arrays))


def tensorflow_xla(function, *arrays):
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)(*map(tf.constant, arrays))


def jax_jit(function, *arrays):
    import jax

    return jax.jit(function)(*arrays)


COMPILERS = {"tensorflow": [tensorflow_graph, tensorflow_xla], "jax": [jax_jit], "torch": []}


def compilers(slow):
    """Returns the pairs of a compiler and whether rules stay functions in the outer program."""
    pairs = itertools.product(COMPILERS[keras.backend.backend()], (True, False))
    marked = [pytest.param(*each, marks=pytest.mark.slow if each in slow else ()) for each in pairs]
    return pytest.mark.parametrize(("compiler", "nested"), marked)


def bits(result):
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part).tolist() for part in parts]


class Plain:
    """Stands for a rule, and calls its function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, inputs):
        return self.function(*inputs)

    inlined = unfused = __call__


@contextlib.contextmanager
def without_functions():
    """Runs rules operation by operation, or as a part of the outer program."""

    def plain(function, tensors, options):
        return Plain(functools.partial(function, **options)), tensors

    with mock.patch.object(tracing, "_rule_for", plain):
        yield


@pytest.fixture(scope="module")
def eager():
    """Returns the bits of each case, computed operation by operation."""
    with without_functions():
        return {name: bits(function(*arrays)) for name, (function, *arrays) in EVERY.items()}


def test_scale_ratio_equals_that_of_doubles(eager):
    assert eager["scale_ratio"] == [
        (np.float64(SX) * MANY.astype("float64") / np.float64(SY)).tolist()
    ]


def test_scale_float32_equals_that_of_floats(eager):
    assert eager["scale_float32"] == [(SX * MANY / SY).tolist()]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fused_size", [1, 2**31], ids=["fused", "plain"])
def test_compiled_rule_gives_the_eager_bits(name, fused_size, eager, monkeypatch):
    monkeypatch.setattr(rules, "FUSED_SIZE", fused_size)
    function, *arrays = EVERY[name]
    assert bits(backend.compiled(function)(*arrays)) == eager[name]


# XLA inlines the functions of the rules: it compiles nearly the same program as of a rule alone.
# Grappler has more to do if scales are constants: the next test is the harder one.
@compilers(slow=list(itertools.product((tensorflow_graph, tensorflow_xla), (True, False))))
@pytest.mark.parametrize("name", EVERY)
def test_rule_in_a_compiled_program_gives_the_eager_bits(compiler, name, nested, eager):
    function, *arrays = EVERY[name]
    with contextlib.nullcontext() if nested else without_functions():
        assert bits(compiler(function, *arrays)) == eager[name]


# A function takes its scales as arguments, so that constants change nothing in its program.
@compilers(slow=[(tensorflow_xla, True), (tensorflow_graph, True)])
@pytest.mark.parametrize("name", EVERY)
def test_rule_with_constant_scales_gives_the_eager_bits(compiler, name, nested, eager):
    function, *arrays = EVERY[name]
    large = max(range(len(arrays)), key=lambda i: np.size(arrays[i]))

    def frozen(x):
        return function(*arrays[:large], x, *arrays[large + 1 :])

    with contextlib.nullcontext() if nested else without_functions():
        assert bits(compiler(frozen, arrays[large])) == eager[name]


@pytest.mark.parametrize("name", list(CASES)[3:])
def test_rule_of_a_symbolic_tensor_keeps_the_shape(name):
    function, first, *rest = CASES[name]
    x = keras.KerasTensor(first.shape, keras.backend.standardize_dtype(first.dtype))
    y = function(x, *rest)
    assert (y.shape, y.dtype) == (x.shape, "int32")
