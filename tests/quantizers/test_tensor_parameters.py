import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_qat.quantizers import FixedParameters, RangeObserver, RangeParameters
from keras_qat.scheme import get_scheme
from tests.quantizers.modes import in_all_modes, on_tensorflow

INT8 = get_scheme("int8")
numbers = st.floats(-(2.0**100), 2.0**100, width=32)


def parameters(*ranges):
    observers = []
    for minimum, maximum in ranges:
        observer = RangeObserver()
        observer.build()
        observer.widen(minimum, maximum)
        observers.append(observer)
    return RangeParameters(INT8, observers)


def grid(*ranges):
    scale, zero_point = parameters(*ranges).grid()
    return float(scale), int(zero_point)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0, 255, 1, -128),  # pixels
        (-128, 127, 1, 0),
        (-255, 0, 1, 127),
        (0, 510, 2, -128),
        (0, 127.5, 0.5, -128),
        (-51, 204, 1, -77),
        # The range includes zero, which was not observed.
        (100, 255, 1, -128),
        (-255, -3, 1, 127),
    ],
)
def test_grid_of_a_range_by_hand(low, high, scale, zero_point):
    assert grid((low, high)) == (scale, zero_point)


@pytest.mark.parametrize("size", [1.0, 0.3, 117.25, 2.0**-20])
def test_grid_of_a_symmetric_range_has_zero_in_the_middle(size):
    scale, zero_point = grid((-size, size))
    assert scale == np.float32(2 * size) * np.float32(1 / 255)
    assert zero_point in (-1, 0)  # 127.5 steps below zero: a tie, decided by the last bit


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-40, -1e-40])
def test_grid_of_a_tensor_of_zeros_has_the_scale_of_a_usual_tensor(value):
    assert grid((value, value)) == (1 / 256, -128)


@pytest.mark.parametrize(("value", "zero_point"), [(5.0, -128), (-5.0, 127)])
def test_grid_of_a_constant_ends_at_the_constant(value, zero_point):
    scale, found = grid((value, value))
    assert (scale, found) == (np.float32(5) * np.float32(1 / 255), zero_point)


def test_grid_of_several_observers_covers_all_their_ranges():
    assert grid((0, 100), (-51, 3), (10, 204)) == grid((-51, 204)) == (1, -77)


@given(numbers, numbers)
def test_grid_has_an_integer_for_zero_and_covers_the_range(a, b):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero_point = grid((min(a, b), max(a, b)))
    assert -128 <= zero_point <= 127 and scale > 0 and np.isfinite(scale)
    # Rounding the zero point moves the limits by half a step at most.
    slack = scale * 0.5 * (1 + 1e-4)
    assert (-128 - zero_point) * scale <= low + slack
    assert (127 - zero_point) * scale >= high - slack


@on_tensorflow
def test_grid_is_equal_in_all_modes():
    ends = np.random.default_rng(0).normal(0, 3, (40, 2)).astype("float32")
    every = [parameters((min(pair), max(pair))) for pair in ends]
    eager, graph, xla = in_all_modes(lambda: [tuple(made.grid()) for made in every])
    assert eager == graph == xla


def test_fixed_parameters_return_their_values():
    scale, zero_point = FixedParameters(1 / 256, -128).grid()
    assert (float(scale), int(zero_point)) == (1 / 256, -128)
    assert FixedParameters(1 / 256, -128) == FixedParameters(1 / 256, -128)
    assert FixedParameters(1 / 256, -128) != FixedParameters(1 / 128, 0)
