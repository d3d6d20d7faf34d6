"""Addition, subtraction and multiplication against XNNPACK, on all pairs of 8-bit values."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import elementwise
from tests.arithmetic import oracle

pytestmark = oracle.on_x86

FUNCTIONS = {
    "ADD": elementwise.add,
    "SUB": elementwise.subtract,
    "MUL": elementwise.multiply,
}
# Ratios of the inputs' scales to the output's, next to the limits of XNNPACK.
LIMITS = [(2.0**-10, 2.0**-10), (2.0**-10, 255.9), (255.9, 255.9), (1.0, 2.0**-10)]
SCALES = [
    (0.5, 0.5, 0.5),
    (1.0, 3.0, 7.0),
    (0.02, 5.0, 5.0),
    *[(a * 0.7, b * 0.7, 0.7) for a, b in LIMITS],
    *[tuple(oracle.scales(np.random.default_rng(seed), 3, -3, 2)) for seed in range(12)],
]
ZERO_POINTS = [(-128, 127, -128), (127, -128, 127), (3, -5, 7)]


def pairs(dtype):
    """Returns all pairs of values of a type, and one column more than a register holds."""
    limits = np.iinfo(dtype)
    every = np.arange(limits.min, limits.max + 1).astype(dtype)
    a, b = np.meshgrid(every, np.append(every, every[:1]))
    return np.ascontiguousarray(a)[None], np.ascontiguousarray(b)[None]


def check(code, a, b, grids, limits, *, shape=None, version=2, **options):
    (sa, za), (sb, zb), (sy, zy) = grids
    operands = [oracle.activation(a, sa, za), oracle.activation(b, sb, zb)]
    shape = np.broadcast_shapes(a.shape, b.shape)
    expected = oracle.xnnpack(code, operands, shape, sy, zy, version, **options)
    a, b = a.astype("int32"), b.astype("int32")
    actual = FUNCTIONS[code](a, sa, za, b, sb, zb, sy, zy, *limits)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("code", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_elementwise_equals_xnnpack(dtype, code, scales):
    sa, sb, sy = np.array(scales, "float32")
    if code == "MUL":  # the ratio of the product is from 2**-16 to 2**8
        sb = np.float32(np.clip(sa * sb / sy, 2.0**-15, 255) * sy / sa)
    limits = np.iinfo(dtype)
    for zero_points in ZERO_POINTS:
        za, zb, zy = np.array(zero_points) + (128 if dtype == "uint8" else 0)
        grids = (sa, za), (sb, zb), (sy, zy)
        check(code, *pairs(dtype), grids, (limits.min, limits.max), version=1 + (dtype == "int8"))


@pytest.mark.parametrize("code", FUNCTIONS)
@pytest.mark.parametrize(("activation", "high"), [("RELU", 127), ("RELU6", 56)])
def test_elementwise_with_a_fused_activation_equals_xnnpack(code, activation, high):
    grids = (0.07, 3), (0.05, -5), (0.1, -4)
    options = {"fusedActivationFunction": activation}
    check(code, *pairs("int8"), grids, (-4, high), **options)


@pytest.mark.parametrize("code", FUNCTIONS)
@pytest.mark.parametrize(
    ("shape", "other"),
    [((7,), (7,)), ((2, 7), (1, 1)), ((1, 1), (3, 5)), ((2, 3, 5), (5,)), ((2, 1, 5), (3, 1))],
)
def test_elementwise_broadcasts_like_xnnpack(code, shape, other):
    rng = np.random.default_rng(0)
    grids = (0.07, 3), (0.05, -5), (0.1, -4)
    check(code, oracle.int8s(rng, shape), oracle.int8s(rng, other), grids, oracle.INT8)


@pytest.mark.parametrize("code", FUNCTIONS)
def test_elementwise_with_a_constant_equals_xnnpack(code):
    rng = np.random.default_rng(0)
    a, b = oracle.int8s(rng, (300, 5)), oracle.int8s(rng, (5,))
    operands = [oracle.activation(a, 0.07, 3), oracle.constant("b", b, 0.05)]
    expected = oracle.xnnpack(code, operands, a.shape, 0.1, -4, 2)
    a, b = a.astype("int32"), b.astype("int32")
    actual = FUNCTIONS[code](a, 0.07, 3, b, 0.05, 0, 0.1, -4, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()
