"""Operators on both sides of the limits of scales up to which XNNPACK takes them."""

import numpy as np
import pytest

from keras_qat.arithmetic.xnnpack import taken
from tests.arithmetic import oracle
from tests.delegates import undelegated

pytestmark = oracle.on_x86

EVERY = np.arange(-128, 128, dtype="int8")
A, B = (np.ascontiguousarray(x)[None] for x in np.meshgrid(EVERY, EVERY))
SY = np.float32(0.7)
BELOW, ABOVE = 1 - 2.0**-20, 1 + 2.0**-20


def default_kernels(is_taken, code, operands, shape, zero_point, version=2, **options):
    """Returns the output of one operator in LiteRT's default kernels."""
    content = oracle.one_operator(code, operands, shape, SY, zero_point, version, **options)
    assert (undelegated(content)[0] == []) == is_taken
    return oracle._output(content, operands, "default")


@pytest.mark.parametrize("code", ["ADD", "SUB"])
@pytest.mark.parametrize(
    ("ratios", "is_taken"),
    [
        ((2.0**-10 * BELOW, 1.0), False),
        ((2.0**-10 * ABOVE, 1.0), True),
        ((3.0, 1e-5), False),
        ((255.9, 3.0), True),
    ],
)
def test_sums_at_the_limits_of_xnnpack(code, ratios, is_taken):
    sa, sb = (np.float32(ratio) * SY for ratio in ratios)
    operands = [oracle.activation(A, sa, 3), oracle.activation(B, sb, -5)]
    expected = default_kernels(is_taken, code, operands, A.shape, 7)
    rule = {"ADD": taken.add, "SUB": taken.subtract}[code]
    actual = rule(A.astype("int32"), sa, 3, B.astype("int32"), sb, -5, SY, 7, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize(("ratio", "is_taken"), [(2.0**-17, False), (2.0**-15, True)])
def test_products_at_the_limits_of_xnnpack(ratio, is_taken):
    sa, sb = np.float32(0.3), np.float32(ratio * SY / 0.3)
    operands = [oracle.activation(A, sa, 3), oracle.activation(B, sb, -5)]
    expected = default_kernels(is_taken, "MUL", operands, A.shape, 7)
    a, b = A.astype("int32"), B.astype("int32")
    actual = taken.multiply(a, sa, 3, b, sb, -5, SY, 7, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize(
    ("ratio", "is_taken"), [(2.0**-9, False), (2.0**-7, True), (100.0, True), (200.0, False)]
)
def test_rescaling_at_the_limits_of_xnnpack(ratio, is_taken):
    sx = np.float32(ratio) * SY
    operands = [oracle.activation(A, sx, 3)]
    expected = default_kernels(is_taken, "QUANTIZE", operands, A.shape, 7)
    actual = taken.rescale(A.astype("int32"), sx, 3, SY, 7, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize(
    ("slope", "is_taken"),
    [(0.0, False), (1e-3, False), (0.3, True), (-0.3, True), (-100.0, True)],
)
def test_leaky_relu_at_the_limits_of_xnnpack(slope, is_taken):
    operands = [oracle.activation(A, SY, 3)]
    expected = default_kernels(is_taken, "LEAKY_RELU", operands, A.shape, 7, alpha=slope)
    slope = np.float32(slope)
    actual = taken.leaky_relu(A.astype("int32"), SY, 3, slope, SY, 7, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()
