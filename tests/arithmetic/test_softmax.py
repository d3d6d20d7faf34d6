"""Softmax against LiteRT's reference kernel."""

import numpy as np
import pytest

from keras_qat.arithmetic import softmax
from tests.arithmetic import oracle

SCALES = [2.0**-12, 0.0113, 0.1, 0.2501, 1.0, 7.3, 100.0]


def expected(q, scale, beta=1.0):
    operands = [oracle.activation(q, scale, 5)]
    options = {"beta": beta}
    shape = q.shape
    return oracle.reference("SOFTMAX", operands, shape, 1 / 256, -128, 2, **options)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_softmax_equals_the_reference_kernel(classes, scale):
    q = oracle.int8s(np.random.default_rng(classes), (6000 // classes, classes))
    actual = softmax.softmax(q.astype("int32"), np.float32(scale))
    assert (np.asarray(actual) == expected(q, scale)).all()


@pytest.mark.parametrize("scale", SCALES)
def test_softmax_of_every_difference_from_the_maximum(scale):
    lower, upper = (x.ravel() for x in np.meshgrid(*[np.arange(-128, 128, dtype="int8")] * 2))
    q = np.stack([lower, upper], 1)
    actual = softmax.softmax(q.astype("int32"), np.float32(scale))
    assert (np.asarray(actual) == expected(q, scale)).all()


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_softmax_with_beta(beta):
    q = oracle.int8s(np.random.default_rng(0), (100, 10))
    actual = softmax.softmax(q.astype("int32"), np.float32(0.07), beta=beta)
    assert (np.asarray(actual) == expected(q, 0.07, beta)).all()


def test_softmax_of_a_thousand_classes():
    q = oracle.int8s(np.random.default_rng(0), (60, 1000))
    actual = softmax.softmax(q.astype("int32"), np.float32(0.1))
    assert (np.asarray(actual) == expected(q, 0.1)).all()


def test_softmax_of_511_equal_classes_equals_the_reference_kernel():
    q = np.zeros((1, 511), "int8")
    assert (np.asarray(softmax.softmax(q.astype("int32"), 0.1)) == expected(q, 0.1)).all()


@pytest.mark.parametrize("classes", [512, 1000, 4096, 5000])
def test_softmax_of_equal_classes_that_abort_the_kernel_is_zero(classes):
    q = np.zeros((1, classes), "int32")
    assert (np.asarray(softmax.softmax(q, 0.1)) == -128).all()
