"""The limits of fused activations."""

import numpy as np
import pytest

from keras_qat.layers.core.fused import activation_limits, apply_activation, fused_code
from keras_qat.quantizers import Grid
from keras_qat.scheme import get_scheme


@pytest.mark.parametrize(
    ("name", "scale", "zero_point", "expected"),
    [
        ("linear", 0.1, 5, (-128, 127)),
        ("relu", 0.1, 5, (5, 127)),
        ("relu", 0.1, -128, (-128, 127)),
        ("relu6", 0.0625, -10, (-10, 86)),
        ("relu6", 0.0078125, -128, (-128, 127)),  # 6 is beyond the range
        ("relu6", 4.0, -10, (-10, -8)),  # 1.5 steps, half away from zero
        ("relu6", 100.0, 0, (0, 0)),
        ("relu6", 1e-30, 0, (0, 127)),  # the quotient does not fit 32 bits
    ],
)
def test_activation_limits_by_hand(name, scale, zero_point, expected):
    low, high = activation_limits(name, np.float32(scale), np.int32(zero_point), get_scheme("int8"))
    assert (int(low), int(high)) == expected


def test_apply_activation_in_float():
    x = np.array([-1.0, 2.0, 9.0], "float32")
    results = {name: apply_activation(name, x) for name in ("linear", "relu", "relu6")}
    assert [float(v) for v in results["linear"]] == [-1.0, 2.0, 9.0]
    assert [float(v) for v in results["relu"]] == [0.0, 2.0, 9.0]
    assert [float(v) for v in results["relu6"]] == [0.0, 2.0, 6.0]


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("linear", 1e-12, "NONE"),
        ("relu", 1e-12, "RELU"),
        ("relu6", 0.1, "RELU6"),
        ("relu6", 1e-5, "RELU6"),
        ("relu6", 1e-9, "RELU"),  # 6 would be more steps than an int32 holds
    ],
)
def test_fused_code(name, scale, expected):
    assert fused_code(name, Grid(np.float32(scale), np.int32(0))) == expected
