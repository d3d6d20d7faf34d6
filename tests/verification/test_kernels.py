"""Rules of `verify` that the table of operators names."""

import pytest

from keras_qat.arithmetic.rules import RULES
from keras_qat.litert.format.operators import declarations
from keras_qat.verification.kernels import KINDS, SUMS, function_named
from keras_qat.verification.moves import MOVES

COMPUTED = {code: each for code, each in declarations().items() if each.computes}


@pytest.mark.parametrize("code", COMPUTED)
def test_rules_of_the_table_exist(code):
    kind, _, name = COMPUTED[code].computes.partition(" ")
    assert kind in KINDS
    if kind in ("binary", "function"):
        assert callable(function_named(name))
    assert kind != "sums" or name in SUMS
    assert kind != "move" or name in MOVES


def test_rules_for_integers_are_those_of_the_arithmetic():
    """No name of the table lacks a function, and no function lacks an operator."""
    assert {name for each in declarations().values() for name in each.integer.values()} == {*RULES}
