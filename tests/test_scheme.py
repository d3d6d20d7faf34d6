import dataclasses

import pytest

from keras_qat.errors import InvalidSchemeError
from keras_qat.scheme import SCHEMES, Scheme, get_scheme


def test_int8_means_what_litert_asks_for():
    scheme = get_scheme("int8")
    limits = scheme.activation_low, scheme.activation_high, scheme.weight_high
    assert limits == (-128, 127, 127)
    assert scheme.weight_per_channel


def test_limits_follow_from_the_widths():
    scheme = Scheme("other", activation_bits=16, weight_bits=4)
    limits = scheme.activation_low, scheme.activation_high, scheme.weight_high
    assert limits == (-32768, 32767, 7)


def test_every_scheme_is_found_by_its_name():
    assert all(get_scheme(name) is scheme for name, scheme in SCHEMES.items())
    assert all(name == scheme.name for name, scheme in SCHEMES.items())


def test_a_known_scheme_is_taken_as_it_is():
    scheme = Scheme("int8")
    assert get_scheme(scheme) is scheme


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme("int8", weight_per_channel=False),
        Scheme("int8", activation_bits=16),
        Scheme("int8", weight_bits=4),
        Scheme("mine"),
    ],
)
def test_a_scheme_without_kernels_is_refused(scheme):
    with pytest.raises(InvalidSchemeError, match="no kernels.*Expected: one of .*Received: Scheme"):
        get_scheme(scheme)


def test_a_scheme_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_scheme("int8").weight_bits = 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("wrong", ["int5", "INT8", "", None, 8, ["int8"]])
def test_an_unknown_scheme_is_refused_and_the_known_ones_are_named(wrong):
    with pytest.raises(
        InvalidSchemeError, match="Expected: one of .*'int8'.* To fix it: "
    ) as error:
        get_scheme(wrong)
    assert f"Received: {wrong!r}" in str(error.value)
