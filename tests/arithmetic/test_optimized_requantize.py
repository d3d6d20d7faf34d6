"""Requantization against LiteRT's optimized kernels."""

import numpy as np
import pytest

from keras_qat.arithmetic.optimized import requantize
from keras_qat.litert import Tensor
from tests.arithmetic import oracle
from tests.arithmetic.test_requantize import BATCH, SCALES

WINDOW = {"padding": "VALID", "strideH": 1, "strideW": 1}


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
