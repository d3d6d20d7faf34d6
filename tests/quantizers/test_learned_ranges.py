"""Learned ranges and ranges of least error of activations, by the papers' formulas and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qat
from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers import Free, RangeObserver, RangeParameters, fake_quantize
from keras_qat.quantizers import with_range_gradient as learned
from keras_qat.quantizers.histograms import count_values
from keras_qat.quantizers.least_error import least_error_range
from keras_qat.quantizers.range_rules import Lsq, Mse
from keras_qat.scheme import get_scheme
from tests.layers.litert_files import exported
from tests.models import labels, linear, small_images, small_network

INT8 = get_scheme("int8")
LIMITS = INT8.activation_low, INT8.activation_high


def observer(low, high, rule=None):
    made = RangeObserver(Free(rule=rule or Lsq()), learns=True)
    made.build()
    made.widen(low, high)
    return made


def counts_of(values):
    return np.asarray(count_values(np.asarray(values, "float32")))


def squared_error(values, low, high, steps):
    step = (high - low) / steps
    return np.square(np.clip(np.round(values / step) * step, low, high) - values).sum()


@pytest.mark.parametrize("steps", [15, 255])
@pytest.mark.parametrize("kind", ["normal", "relu", "tails"])
def test_least_error_range_is_as_good_as_that_of_a_fine_search(kind, steps):
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, 4000) if kind == "tails" else rng.normal(size=4000)
    values = (np.maximum(values, 0) if kind == "relu" else values).astype("float32")
    least, most = float(values.min()), float(values.max())
    low, high = least_error_range(counts_of(values), least, most, steps)
    assert least <= low <= 0 and 0 < high <= most
    searched = [
        squared_error(values, a * least, b * most, steps)
        for a in np.linspace(0.05, 1, 40 if least < 0 else 1)
        for b in np.linspace(0.05, 1, 40)
    ]
    assert squared_error(values, low, high, steps) <= 1.1 * min(searched)


def test_mse_range_depends_on_the_width_of_activations():
    values = np.random.default_rng(0).standard_t(3, 20000).astype("float32")
    extremes = np.repeat(values[:, None], 2, axis=1)
    wide = type(INT8)("wide", activation_bits=16)
    ends = values.min(), values.max()
    few, many = (Mse().range_of(extremes, counts_of(values), each) for each in (INT8, wide))
    assert np.ptp(few) < 0.96 * np.ptp(ends) and np.ptp(many) > 0.99 * np.ptp(ends)


def test_mse_range_of_zeros_is_empty():
    extremes = np.zeros((4, 2), "float32")
    assert Mse().range_of(extremes, counts_of(np.zeros(8)), INT8) == (0, 0)


def test_with_range_gradient_is_that_of_lsq_plus():
    """Equations 6 and 7 of https://arxiv.org/abs/2004.09576, for ends b and b + 255 s, by hand."""
    low, high = tf.constant(-12.8), tf.constant(12.7)  # a step of 0.1, and zero point 0
    x = tf.constant([0.26, -0.14, 5.0, 20.0, -30.0])
    upstream = np.array([1, 2, 4, 8, 16], "float32")
    parameters = RangeParameters(INT8, [observer(-12.8, 12.7)])
    with tf.GradientTape() as tape:
        tape.watch([low, high, x])
        grid = parameters.grid()
        y = fake_quantize(x, grid.scale, grid.zero_point, *LIMITS)
        moved = learned(x, y, grid, LIMITS, (low, high))
        loss = tf.reduce_sum(moved * upstream)
    of_low, of_high, of_x = map(np.asarray, tape.gradient(loss, [low, high, x]))
    assert np.array_equal(moved, y)
    of_scale = 1 * (3 - 2.6) + 2 * (-1 + 1.4) + 255 * 8 + 0 * 16  # from the lower end
    of_offset = 8 + 16
    assert float(of_high) == pytest.approx(of_scale / 255, rel=1e-4)
    assert float(of_low) == pytest.approx(of_offset - of_scale / 255, rel=1e-4)
    assert of_x.tolist() == [1, 2, 4, 0, 0]


@pytest.mark.parametrize("multiplier", [1.0, 0.25])
def test_learned_step_of_an_activation_moves_by_the_scaled_gradient(multiplier):
    """Gradient descent on a one-sided range moves its step as LSQ does."""
    own, rate, count = observer(0.0, 25.5, Lsq(multiplier)), 1e-3, 10
    with tf.GradientTape() as tape:
        low, high = own.trained_ends(count, 255)
        loss = 3.0 * high + 7.0 * low
    [gradient] = tape.gradient(loss, [own.factors.value])
    keras.optimizers.SGD(rate).apply([gradient], [own.factors])
    # The step has the gradient 3 * 255, times g = 1 / sqrt(count * 255).
    moved = -rate * multiplier * 3 * 255 / np.sqrt(count * 255)
    assert own.limits[0] == 0
    assert own.limits[1] / 255 - 0.1 == pytest.approx(moved, rel=1e-3)


def test_learned_range_of_a_group_has_the_gradient_of_the_widest():
    first, second = observer(-1.0, 2.0), observer(-3.0, 1.0)
    with tf.GradientTape() as tape:
        low, high = RangeParameters(INT8, [first, second]).trained_ends(4)
        loss = low + high
    of_first, of_second = map(
        np.asarray, tape.gradient(loss, [first.factors.value, second.factors.value])
    )
    assert (of_first != 0).tolist() == [False, True] and (of_second != 0).tolist() == [True, False]


def test_learned_range_starts_as_calibrated_and_keeps_it_with_another_multiplier():
    own = observer(-1.0, 3.0, Lsq(0.5))
    assert own.limits == (-1.0, 3.0) and np.allclose(own.factors, 2)
    own.set_rule(Lsq(0.125))
    assert own.limits == (-1.0, 3.0) and np.allclose(own.factors, 8)
    own.widen(-2.0, 3.0)
    assert own.limits == (-2.0, 3.0)


def quantized(rule="lsq", weights="lsq", scheme="int4"):
    qat = keras_qat.quantize_model(
        small_network(), scheme, range_rule=rule, weight_range_rule=weights
    )
    keras_qat.calibrate(qat, small_images(), verbose=0)
    return qat


def trained(qat, optimizer):
    qat.compile(optimizer, "sparse_categorical_crossentropy")
    qat.fit(small_images(), labels(), batch_size=8, epochs=1, shuffle=False, verbose=0)
    return qat


def test_learned_ranges_are_trained_without_weight_decay_and_exact(tmp_path):
    ranges = []
    for decay in (None, 100.0):  # takes a tenth of a weight in each step
        qat = quantized()
        start = qat.get_layer("conv").observer.limits
        optimizer = keras.optimizers.SGD(1e-3, weight_decay=decay)
        optimizer.exclude_from_weight_decay(var_names=["kernel", "gamma", "beta"])
        trained(qat, optimizer)
        assert qat.get_layer("conv").observer.limits != start
        ranges.append([np.asarray(each) for each in qat.learned_ranges])
    assert len(ranges[0]) == 4
    for plain, decayed in zip(*ranges, strict=True):
        np.testing.assert_allclose(plain, decayed, atol=0.02)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    data = small_images(32, seed=1)
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact
    qat.save(tmp_path / "model.keras")
    assert exported(keras.saving.load_model(tmp_path / "model.keras")) == exported(qat)


def test_learned_ranges_without_calibration_start_at_the_first_batch():
    qat = keras_qat.quantize_model(linear(), range_rule="lsq")
    data = np.array([[0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    qat.compile(keras.optimizers.SGD(0.0), "mse")
    for scale in (1, 0.5, 2):
        qat.fit(scale * data, np.zeros((2, 2)), batch_size=2, verbose=0)
    assert qat.get_layer("dense").observer.limits == pytest.approx((0, 16), rel=0.01)


def test_calibrate_refuses_to_change_whether_ranges_are_learned():
    data = np.eye(4, dtype="float32")
    for made, asked in (("robust", "lsq"), ("lsq", "minmax")):
        qat = keras_qat.quantize_model(linear(), range_rule=made)
        with pytest.raises(InvalidRangeRuleError, match=f"range_rule='{asked}'.*To fix it"):
            keras_qat.calibrate(qat, data, range_rule=asked, verbose=0)
        keras_qat.calibrate(qat, data, verbose=0)
        assert qat.range_rule.name == made


def test_calibrate_keeps_the_rule_of_the_model():
    qat = keras_qat.quantize_model(linear(), range_rule="percentile")
    keras_qat.calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    assert qat.range_rule.name == "percentile"
