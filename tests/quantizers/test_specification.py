"""Specifications of tensors; the oracle is numbers by hand."""

import pytest

from keras_qat.quantizers import (
    Derived,
    Fixed,
    FixedParameters,
    Free,
    InputStats,
    MinMax,
    Robust,
    Shared,
    make_observers,
)
from keras_qat.scheme import get_scheme


@pytest.mark.parametrize(("scheme", "expected"), [("int8", (-128, -128)), ("uint8", (0, 0))])
def test_fixed_parameters_in_the_type_of_the_scheme(scheme, expected):
    found = Fixed(1 / 256, -128).parameters(get_scheme(scheme))
    assert found == FixedParameters(1 / 256, *expected)


def test_input_stats_specification_is_in_int8():
    # The uint8 pixel 0 is the int8 integer -128, and stands for 0.
    observed = Free(usual_range=(0.0, 255.0))
    assert InputStats.of((0, 1), "x").specification(observed) == Fixed(1.0, -128, observed)
    assert InputStats.of((0, 1, "int8"), "x").specification(observed) == Fixed(1.0, 0, observed)


def test_make_observers_leaves_out_tensors_that_are_not_observed():
    specifications = {"output": Shared(), "a": Fixed(1.0, 0), "b": Derived("kernel")}
    assert make_observers(specifications) == {}


def test_make_observers_observes_shared_and_fixed_tensors_that_say_so():
    observed = Free(keeps_calibration=True)
    made = make_observers({"output": Shared(observed), "a": Fixed(1.0, 0, observed)})
    assert {name: each.specification for name, each in made.items()} == {
        "output": observed,
        "a": observed,
    }


def test_make_observers_names_the_ranges_after_the_tensors():
    made = make_observers({"output": Free(), "product": Free()})
    assert {tensor: each.name for tensor, each in made.items()} == {
        "output": "range",
        "product": "product_range",
    }


def test_make_observers_takes_the_rule_of_the_model_or_of_the_specification():
    specifications = {"output": Free(rule=MinMax())}
    assert make_observers(specifications)["output"].specification.rule == MinMax()
    made = make_observers(specifications, Robust())
    assert made["output"].specification.rule == Robust()
