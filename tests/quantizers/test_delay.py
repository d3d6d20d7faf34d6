"""Delayed quantization: during the delay, every layer computes what its float layer computes."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidDelayError
from keras_qat.quantizers import (
    QuantDelay,
    WeightGrid,
    clip_weights,
    delayed,
    fake_quantize,
    unless_delayed,
)
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, as_arrays
from tests.layers.test_contract import CASES, gradients, moving_statistics

# The largest difference between two forms of a float computation, relative to the largest value.
ROUNDING = 2e-5


def assert_close(ours, theirs, name: object = "", least: float = 0.0):
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= ROUNDING * max(np.max(np.abs(theirs)), least), name


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", first_of_each(CASES))
def test_delay_makes_training_equal_that_of_the_float_layers(case):
    """Compares outputs, moving statistics and gradients."""
    if case.steps is None:
        pytest.skip("training draws random numbers")
    prepared = Prepared(case)
    exact = keras_qat.clone_model(prepared.keras_model)
    model = keras_qat.quantize_model(prepared.keras_model, quant_delay=2)
    found = as_arrays(model(prepared.x, training=True))
    for ours, theirs in zip(found, as_arrays(exact(prepared.x, training=True)), strict=True):
        assert_close(ours, theirs)
    carried = moving_statistics(model)
    for name, statistics in moving_statistics(exact).items():
        assert_close(carried[name], statistics, name)
    found, expected = gradients(model, prepared.x), gradients(exact, prepared.x)
    assert set(found) == set(expected)
    # A bias before a normalization has a gradient of rounding errors only.
    least = max((0.01 * np.max(np.abs(each)) for each in expected.values()), default=0.0)
    for path, gradient in found.items():
        if not path.endswith(case.no_gradient or ("no such weight",)):
            assert_close(gradient, expected[path], path, least)
    model.check_ranges()
    assert model.quant_delay is not None and int(model.quant_delay.left) == 0


def test_delay_counts_down_to_zero_and_stays():
    delay = QuantDelay(2)
    delay.build()
    assert [bool(delay.count_down()) for _ in range(4)] == [True, True, False, False]
    assert int(delay.left) == 0
    assert QuantDelay.from_config(delay.get_config()).steps == 2


@pytest.mark.parametrize("steps", [-1, 1.0, True, "10", None, 2**31])
def test_quantize_model_refuses_an_invalid_quant_delay(steps):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(InvalidDelayError, match="whole number of training steps.*quant_delay="):
        keras_qat.quantize_model(model, quant_delay=steps)


@pytest.mark.parametrize(("is_delayed", "first"), [(None, 0.5), (False, 0.5), (True, 0.26)])
def test_delayed_keeps_values_and_weights_unrounded(is_delayed, first):
    x = np.array([0.26, 99.0], "float32")
    condition = None if is_delayed is None else keras.ops.convert_to_tensor(is_delayed)
    with delayed(condition):
        values = fake_quantize(x, 0.5, 0, -128, 127)
        weights = clip_weights(x, WeightGrid(np.float32(0.5), 0, -127, 127))
    expected = np.array([first, 99.0 if is_delayed else 63.5], "float32")
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(weights, expected)
    assert unless_delayed(1, 2) == 2  # outside of the context
