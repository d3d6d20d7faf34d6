import dataclasses

import pytest

from keras_qat.errors import InvalidSchemeError
from keras_qat.scheme import SCHEMES, Scheme, get_scheme


def test_scheme_int8_has_the_limits_of_litert():
    scheme = get_scheme("int8")
    limits = scheme.activation_low, scheme.activation_high, scheme.weight_high
    assert limits == (-128, 127, 127)
    assert scheme.weight_per_channel


def test_scheme_limits_follow_from_the_widths():
    scheme = Scheme("other", activation_bits=16, weight_bits=4)
    limits = scheme.activation_low, scheme.activation_high, scheme.weight_high
    assert limits == (-32768, 32767, 7)


def test_get_scheme_finds_every_scheme_by_name():
    assert all(get_scheme(name) is scheme for name, scheme in SCHEMES.items())
    assert all(name == scheme.name for name, scheme in SCHEMES.items())


def test_get_scheme_takes_a_known_scheme():
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
def test_get_scheme_refuses_a_scheme_without_kernels(scheme):
    with pytest.raises(InvalidSchemeError, match="no kernels.*Expected: one of .*Received: Scheme"):
        get_scheme(scheme)


def test_scheme_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_scheme("int8").weight_bits = 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("wrong", ["int5", "INT8", "", None, 8, ["int8"]])
def test_get_scheme_names_the_known_schemes(wrong):
    with pytest.raises(
        InvalidSchemeError, match="Expected: one of .*'int8'.* To fix it: "
    ) as error:
        get_scheme(wrong)
    assert f"Received: {wrong!r}" in str(error.value)
