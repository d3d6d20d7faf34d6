"""Tables of TANH, GELU and ELU against LiteRT's kernels, and scales that avoid rounding ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_qat.arithmetic import tables
from keras_qat.arithmetic.tables import Table, away_from_ties, operator_table
from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from tests.arithmetic import oracle

EVERY = np.arange(-128, 128, dtype="int8")[None]
# Computed entry by entry in double by Python's C library.
EXACT = {
    "tanh": (ops.tanh, math.tanh),
    "logistic": (tables.logistic, lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0),
    "erf_gelu": (tables.erf_gelu, lambda x: 0.5 * x * math.erfc(-x * math.sqrt(0.5))),
    "elu": (tables.elu, lambda x: x if x > 0 else math.expm1(x)),
}


def least_distance(function, source, zero_point, target):
    """Returns the smallest distance of the 256 entries from a tie, in steps of the output."""
    steps = [function(float(source) * (q - zero_point)) / float(target) for q in range(-128, 128)]
    return min(abs(step - math.floor(step) - 0.5) for step in steps)


scales = st.floats(2.0**-7, 0.5, width=32)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(scale=scales, zero_point=st.integers(-128, 127), name=st.sampled_from(["tanh", "logistic"]))
def test_away_from_ties_widens_the_input_scale(scale, zero_point, name):
    function, exact = EXACT[name]
    target = 1 / 128 if name == "tanh" else 1 / 256
    table = Table(function, "input", -128, 127)
    wider = np.float32(away_from_ties(np.float32(scale), target, 0, tables=(table,)))
    assert scale <= wider <= scale * 1.008
    assert least_distance(exact, wider, zero_point, target) > 1e-3


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    scale=scales,
    ratio=st.floats(0.25, 1.5, width=32),
    zero_point=st.integers(-128, 127),
    name=st.sampled_from(["erf_gelu", "elu"]),
)
def test_away_from_ties_widens_the_output_scale(scale, ratio, zero_point, name):
    function, exact = EXACT[name]
    target, table = np.float32(scale * ratio), Table(function, "output", -128, 127)
    wider = np.float32(away_from_ties(target, np.float32(scale), zero_point, tables=(table,)))
    assert target <= wider <= target * 1.008
    assert least_distance(exact, np.float32(scale), zero_point, wider) > 1e-3


def test_away_from_ties_keeps_a_scale_without_a_tie():
    table = Table(ops.tanh, "input", -128, 127)
    kept = [
        scale == np.float32(away_from_ties(scale, 1 / 128, 0, tables=(table,)))
        for scale in oracle.scales(np.random.default_rng(0), 40, -6, -2)
    ]
    assert 10 < sum(kept) < 40


KERNELS = [
    ("TANH", ops.tanh, 2, {}, "reference"),
    ("GELU", tables.erf_gelu, 2, {"approximate": False}, "reference"),
    ("GELU", tables.tanh_gelu, 2, {"approximate": True}, "reference"),
    # The reference kernels lack ELU.
    ("ELU", tables.elu, 1, {}, "default"),
]


def kernel(code, grid, output, version, options, kernels):
    x = Tensor("x", EVERY.shape, "int8", oracle.per_tensor(*grid))
    y = Tensor("y", EVERY.shape, "int8", oracle.per_tensor(*output))
    operator = Operator(code, (x,), (y,), version, options)
    runner = Runner(to_bytes(Model({"x": x}, {"y": y}, (operator,))), kernels=kernels)
    return runner.run([EVERY])[0][0].astype("int32")


@pytest.mark.parametrize(("code", "function", "version", "options", "kernels"), KERNELS)
def test_operator_table_equals_the_kernel(code, function, version, options, kernels):
    rng = np.random.default_rng(0)
    table = Table(function, "output", -128, 127)
    for scale in oracle.scales(rng, 60, -8, 2):
        zero_point, offset = (int(value) for value in rng.integers(-128, 128, 2))
        target = np.float32(scale * rng.uniform(0.5, 2))
        target = np.float32(away_from_ties(target, scale, zero_point, tables=(table,)))
        grid, output = (scale, zero_point), (target, offset)
        expected = kernel(code, grid, output, version, options, kernels)
        ours = operator_table(*grid, *output, function=function, low=-128, high=127)
        assert (np.asarray(ours) == expected).all()
