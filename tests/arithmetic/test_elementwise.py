"""Addition and subtraction against LiteRT's reference kernels, on all pairs of int8 values."""

import numpy as np
import pytest

from keras_qat.arithmetic import elementwise
from tests.arithmetic import oracle

EVERY = np.arange(-128, 128, dtype="int8")
A, B = (np.ascontiguousarray(x)[None] for x in np.meshgrid(EVERY, EVERY))
SCALES = [
    (0.5, 0.5, 0.5),
    (1.0, 3.0, 7.0),
    (0.02, 5.0, 5.0),
    (5.0, 1e-12, 5.0),  # too small a ratio for a multiplier
    (0.1, 0.1, 1e-3),
    (1e-4, 1e-4, 10.0),
    *[tuple(oracle.scales(np.random.default_rng(seed), 3, -6, 2)) for seed in range(6)],
]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("code", ["ADD", "SUB"])
def test_add_and_subtract_equal_the_reference_kernels(code, scales):
    sa, sb, sy = np.array(scales, "float32")
    za, zb, zy = (int(v) for v in np.random.default_rng(0).integers(-128, 128, 3))
    operands = [oracle.activation(A, sa, za), oracle.activation(B, sb, zb)]
    expected = oracle.reference(code, operands, A.shape, sy, zy, 2)
    function = {"ADD": elementwise.add, "SUB": elementwise.subtract}[code]
    a, b = A.astype("int32"), B.astype("int32")
    actual = function(a, sa, za, b, sb, zb, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


def test_add_broadcasts_and_clips():
    a, b = np.array([[1], [100]], "int32"), np.array([10, 20], "int32")
    actual = elementwise.add(a, 1.0, 0, b, 1.0, 0, 1.0, 0, 0, 112)
    assert np.asarray(actual).tolist() == [[11, 21], [110, 112]]
