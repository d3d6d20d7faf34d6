"""Range rules. The oracles are hand-computed numbers and NumPy's percentile."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidRangeRuleError
from keras_qat.layers import QuantizedModel
from keras_qat.quantizers import RangeObserver, RangeRule
from keras_qat.quantizers.range_rules import (
    RANGE_RULES,
    MinMax,
    MovingAverage,
    Percentile,
    Robust,
    get_range_rule,
)
from tests.models import linear

EXTREMES = np.array([[-1, 2], [0, 5], [-3, 1]], "float32")
# The ratio of the largest and the smallest magnitude of a bin.
BIN = 2 ** (1 / 64)


def percentile_range(values, percentile=99.0, batches=1):
    """Returns the range of values by a percentile rule. Each value is a sample."""
    rule = Percentile(percentile)
    parts = np.array_split(np.asarray(values, "float32"), batches)
    sums = np.sum([keras.ops.convert_to_numpy(rule.sums(part)) for part in parts], axis=0)
    extremes = np.repeat(np.asarray(values, "float32")[:, None], 2, axis=1)
    return rule.range(extremes, sums)


@pytest.mark.parametrize("rule", [MinMax(), Robust(), MovingAverage(), RangeRule()], ids=repr)
def test_range_rules_of_extremes_give_the_smallest_and_the_largest(rule):
    assert rule.range(EXTREMES, None) == (-3, 5)


@pytest.mark.parametrize("batches", [1, 7])
@pytest.mark.parametrize("percentile", [90, 99, 99.9])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_percentile_range_is_at_most_a_bin_wider_than_that_of_numpy(scale, percentile, batches):
    values = np.random.default_rng(0).normal(size=5000) * scale
    low, high = percentile_range(values, percentile, batches)
    ends = np.percentile(values, 100 - percentile), np.percentile(values, percentile)
    # NumPy interpolates between two values, so the true limits lie between them.
    least = np.percentile(values, 100 - percentile, method="lower")
    most = np.percentile(values, percentile, method="higher")
    assert least * BIN * 1.0001 <= low <= ends[0] and ends[1] <= high <= most * BIN * 1.0001


def test_percentile_range_of_counted_values():
    # 1 to 1000: the 99th percentile lies between 990 and 991, the first between 10 and 11.
    low, high = percentile_range(np.arange(1, 1001))
    assert 10 / BIN < low <= 10.99 and 991 <= high < 991 * BIN


def test_percentile_range_of_100_percent_is_that_of_the_extremes():
    assert percentile_range([-2.5, 0.1, 7.25], 100) == (-2.5, 7.25)


def test_percentile_range_stays_within_the_extremes():
    assert percentile_range([-3.0] * 10 + [5.0] * 10) == (-3, 5)


def test_percentile_range_of_values_that_are_almost_always_0_is_not_empty():
    assert percentile_range([0.0] * 999 + [4.0]) == (0, 4)


def test_percentile_range_of_zeros_is_empty():
    assert percentile_range(np.zeros(10)) == (0, 0)


def test_percentile_sums_count_values_that_are_not_finite():
    counts = keras.ops.convert_to_numpy(
        Percentile().sums(np.array([np.inf, -np.inf, 1e-45], "float32"))
    )
    assert counts.sum() == 3 and counts[0] == counts[-1] == 1


@pytest.mark.parametrize("value", [0, 50, 100.1, -1, float("nan")])
def test_percentile_refuses_invalid_percentiles(value):
    with pytest.raises(InvalidRangeRuleError, match=r"\(50, 100\].* To fix it: "):
        Percentile(value)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_moving_average_refuses_invalid_momenta(value):
    with pytest.raises(InvalidRangeRuleError, match=r"\[0, 1\].* To fix it: "):
        MovingAverage(value)


def test_moving_average_shrinks_slowly_and_widens_up_to_the_limit():
    moved = MovingAverage(0.75).moved(*np.array([[4, 4], [2, 9], [3, 3]], "float32"))
    assert keras.ops.convert_to_numpy(moved).tolist() == [4 - 0.25 * 2, 7]


@pytest.mark.parametrize("rule", [*(make() for make in RANGE_RULES.values()), Percentile(95)])
def test_range_rules_are_serializable(rule):
    config = keras.saving.serialize_keras_object(rule)
    assert config["registered_name"] == f"keras_qat>{type(rule).__name__}"
    assert keras.saving.deserialize_keras_object(config) == rule


def test_get_range_rule_takes_names_and_objects():
    assert get_range_rule("percentile") == Percentile(99.99)
    rule = Percentile(99)
    assert get_range_rule(rule) is rule


@pytest.mark.parametrize("value", ["median", None, 99.9, Percentile, ["minmax"]])
def test_get_range_rule_refuses_other_values(value):
    with pytest.raises(InvalidRangeRuleError, match=r"'lsq'\], or a .* To fix it: "):
        get_range_rule(value)


def calibrated(data, rule):
    model = keras_qat.quantize_model(linear())
    keras_qat.calibrate(model, data, range_rule=rule, verbose=0)
    return model


def limits(model):
    return {
        layer.name: layer.observer.limits for layer in model.layers if hasattr(layer, "observer")
    }


def test_calibrate_by_a_percentile_leaves_out_rare_values():
    data = np.random.default_rng(0).normal(size=(1000, 4)).astype("float32")
    model = calibrated([data[:300], data[300:]], Percentile(99))
    low, high = limits(model)["x_quantize"]
    assert high == pytest.approx(np.percentile(data, 99), rel=0.02)
    assert low == pytest.approx(np.percentile(data, 1), rel=0.02)
    low, high = limits(model)["dense"]  # the sum of the four
    assert high == pytest.approx(np.percentile(data.sum(1), 99), rel=0.03)
    assert model.layers[-1].observer.is_held


def test_calibrate_by_a_percentile_gives_pixels_their_range():
    data = np.random.default_rng(0).integers(3, 9, (64, 4)).astype("uint8")
    assert limits(calibrated(data, "percentile"))["x_quantize"] == (0, 255)


def test_saved_model_keeps_its_range_rule(tmp_path):
    data = np.array([[0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    model = calibrated(data, MovingAverage(0.5))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        assert each.range_rule == MovingAverage(0.5)
        each.compile(keras.optimizers.SGD(0.0), "mse")
        each.fit(data / 2, np.zeros((2, 1)), batch_size=2, verbose=0)
        assert limits(each)["dense"] == (0, pytest.approx(16 - 0.5 * 8, rel=0.005))


def test_range_rule_is_kept_by_clone_model():
    data = np.array([[0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    model = calibrated(data, MovingAverage(0.5))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert clone.range_rule == MovingAverage(0.5)
    clone.compile(keras.optimizers.SGD(0.0), "mse")
    clone.fit(data / 2, np.zeros((2, 1)), batch_size=2, verbose=0)
    assert limits(clone)["dense"] == (0, pytest.approx(16 - 0.5 * 8, rel=0.005))


def test_range_rule_in_the_configuration_of_an_older_model_is_loaded():
    config = calibrated(np.eye(4, dtype="float32"), "robust").get_config()
    config["range_rule"] = keras.saving.serialize_keras_object(MovingAverage(0.5))
    assert QuantizedModel.from_config(config).range_rule == MovingAverage(0.5)


def test_calibrate_with_another_rule_changes_the_compiled_training_step():
    data = np.array([[0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    model = calibrated(data, "moving_average")
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(data, np.zeros((2, 1)), batch_size=2, verbose=0)
    keras_qat.calibrate(model, data, range_rule=MovingAverage(0.5), verbose=0)
    model.fit(data / 2, np.zeros((2, 1)), batch_size=2, verbose=0)
    assert limits(model)["dense"] == (0, pytest.approx(16 - 0.5 * 8, rel=0.005))


def test_saved_model_omits_the_default_range_rule():
    data = np.eye(4, dtype="float32")
    assert "range_rule" not in calibrated(data, "robust").get_config()


def test_observer_has_the_default_rule():
    assert RangeObserver().specification.rule == Robust()
