"""Costs of operators against hand-computed numbers."""

import re

import pytest

from keras_qat.inspection.costs import operator_macs
from keras_qat.litert.format.operators import declarations

BATCH_MATMUL = {"adj_x": False, "adj_y": False}
CASES = {
    # Each of the 2 * 4 * 4 * 16 results sums over 3 * 3 * 8 products: 8 channels of a group.
    "CONV_2D": ([(2, 8, 8, 16), (16, 3, 3, 8), (16,)], (2, 4, 4, 16), None, 36_864),
    "DEPTHWISE_CONV_2D": ([(1, 8, 8, 4), (1, 3, 5, 8)], (1, 8, 8, 8), None, 8 * 8 * 8 * 15),
    "CONV_3D": ([(1, 4, 4, 4, 2), (2, 2, 2, 2, 5)], (1, 3, 3, 3, 5), None, 27 * 5 * 16),
    # Each of the 3 * 3 * 4 inputs is multiplied by 2 * 2 * 6 weights.
    "TRANSPOSE_CONV": ([(4,), (6, 2, 2, 4), (1, 3, 3, 4)], (1, 6, 6, 6), None, 864),
    "CONV_3D_TRANSPOSE": ([(5,), (2, 2, 2, 6, 4), (1, 3, 3, 3, 4)], (1, 6, 6, 6, 6), None, 5_184),
    "FULLY_CONNECTED": ([(5, 7), (3, 7), None], (5, 3), None, 105),
    "BATCH_MATMUL": ([(2, 3, 4), (2, 4, 5)], (2, 3, 5), BATCH_MATMUL, 120),
    # Seven steps of two samples, with two matrices of 3 * 5 and 5 * 5.
    "UNIDIRECTIONAL_SEQUENCE_RNN": (
        [(2, 7, 3), (5, 3), (5, 5), (5,), (2, 5)],
        (2, 7, 5),
        None,
        14 * 40,
    ),
    # Four gates of 3 * 5 and 5 * 5. No peepholes, no projection, no state at 18 and 19.
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        [(2, 7, 3), *[(5, 3)] * 4, *[(5, 5)] * 4, *[None] * 3, *[(5,)] * 4, None, None]
        + [(2, 5), (2, 5)],
        (2, 7, 5),
        None,
        14 * 4 * 40,
    ),
    "SVDF": ([(2, 3), (8, 3), (8, 10), (4,), (2, 80)], (2, 4), None, 2 * (24 + 80)),
    "ADD": ([(1, 4), (1, 4)], (1, 4), None, 0),
    "CUSTOM(x)": ([(1, 4)], (1, 4), None, None),
    "UNKNOWN(999)": ([(1, 4)], (1, 4), None, None),
    "STABLEHLO_DOT_GENERAL": ([(4, 4), (4, 4)], (4, 4), None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_macs(name):
    inputs, output, options, expected = CASES[name]
    assert operator_macs(name, inputs, output, options) == expected


def test_operator_macs_of_a_transposed_operand():
    inputs = [(2, 4, 3), (2, 4, 5)]
    assert operator_macs("BATCH_MATMUL", inputs, (2, 3, 5), {"adj_x": True}) == 120  # pyright: ignore


@pytest.mark.parametrize("inputs", [[], [None, None], [(3,), (3,)], [None, (3, 3, 3)]])
@pytest.mark.parametrize("name", ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED"])
def test_operator_macs_of_invalid_operands_is_none(name, inputs):
    assert operator_macs(name, inputs, (1, 4, 4, 16), None) is None


@pytest.mark.parametrize("inputs", [[], [None, (4, 4)], [(4,), (4, 4)]])
@pytest.mark.parametrize("name", ["TRANSPOSE_CONV", "BATCH_MATMUL"])
def test_operator_macs_of_invalid_first_operands_is_none(name, inputs):
    assert operator_macs(name, inputs, (1, 4, 4, 16), None) is None


def test_products_are_of_operands_that_the_operator_has():
    for code, declaration in declarations().items():
        for product in {declaration.macs, *declaration.macs_if.values()} - {"", "unknown"}:
            roles = set(re.findall(r"[a-z]+(?![.a-z]*\))", product)) - {"output", "steps"}
            assert roles - {"matrices"} <= set(declaration.operands), code
