"""Softmax against LiteRT's optimized kernel."""

import numpy as np
import pytest

from keras_qat.arithmetic.optimized import softmax
from keras_qat.backend import compiled
from tests.arithmetic import oracle

pytestmark = oracle.on_x86
SCALES = [2.0**-12, 0.0113, 0.03, 0.1, 0.2501, 0.6, 1.0, 7.3, 100.0]


def expected(q, scale, beta=1.0):
    operands = [oracle.activation(q, scale, 5)]
    options = {"beta": beta}
    return oracle.optimized("SOFTMAX", operands, q.shape, 1 / 256, -128, 2, **options)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", [2, 3, 10, 17, 100, 1001])
def test_softmax_equals_the_optimized_kernel(classes, scale):
    q = oracle.int8s(np.random.default_rng(classes), (100_000 // classes, classes))
    q[::2] //= 8
    actual = compiled(softmax.softmax)(q.astype("int32"), np.float32(scale))
    assert (np.asarray(actual) == expected(q, scale)).all()


@pytest.mark.parametrize("scale", SCALES)
def test_softmax_of_every_difference_from_the_maximum(scale):
    lower, upper = (x.ravel() for x in np.meshgrid(*[np.arange(-128, 128, dtype="int8")] * 2))
    q = np.stack([lower, upper], 1)
    actual = softmax.softmax(q.astype("int32"), np.float32(scale))
    assert (np.asarray(actual) == expected(q, scale)).all()


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_softmax_with_beta(beta):
    q = oracle.int8s(np.random.default_rng(0), (100, 2, 10))
    actual = softmax.softmax(q.astype("int32"), np.float32(0.07), beta=beta)
    assert (np.asarray(actual) == expected(q, 0.07, beta)).all()


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 6, 170, 511, 512, 513, 1024, 5000])
def test_softmax_of_equal_classes(classes):
    q = np.zeros((1, classes), "int8")
    actual = compiled(softmax.softmax)(q.astype("int32"), 0.1)
    assert (np.asarray(actual) == expected(q, 0.1)).all()


def test_exponentials_equal_those_of_the_c_library():
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("There is no C library of mathematics.")
    expf = ctypes.CDLL(name).expf
    expf.restype, expf.argtypes = ctypes.c_float, [ctypes.c_float]
    for scale in oracle.scales(np.random.default_rng(0), 100, -10, 5):
        x = np.arange(-255, 1, dtype="float32") * scale
        found = np.asarray(softmax.exponentials(scale, 1.0))
        assert (found == [expf(max(v, -80.0)) for v in x]).all()
