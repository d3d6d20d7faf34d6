"""Steps of weights. The oracles are searches in float64, numbers and the formulas of the papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers import WeightRange, clip_weights, weight_grid
from keras_qat.quantizers.least_error import least_error_step, refined_step
from keras_qat.quantizers.range_rules import (
    Lsq,
    MinMax,
    MovingAverage,
    Mse,
    Percentile,
    weight_rule,
)
from keras_qat.scheme import Scheme, get_scheme

INT4 = Scheme("few", weight_bits=4)
UINT4 = Scheme("few", weight_bits=4, weight_symmetric=False, is_signed=False)


def kernel(seed=0, shape=(3, 3, 4, 6)):
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * np.exp(rng.normal(size=shape[-1]))).astype("float32")


def squared_error(w, step, largest=7):
    q = np.clip(np.rint(w / step), -largest, largest)
    return np.square(q * step - w).sum()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_least_error_step_is_as_good_as_that_of_a_fine_search(bits):
    scheme, largest = Scheme("few", weight_bits=bits), 2 ** (bits - 1) - 1
    w = kernel()
    steps = np.asarray(least_error_step(w, (0, 1, 2), scheme)).reshape(-1)
    for own, step in zip(np.moveaxis(w.astype("float64"), -1, 0), steps, strict=True):
        covering = np.abs(own).max() / largest
        searched = [squared_error(own, covering * s, largest) for s in np.linspace(0.05, 1, 2000)]
        assert squared_error(own, step, largest) <= 1.03 * min(searched)


def test_least_error_step_of_one_outlier_by_hand():
    # The integers are 1, -2, 3, 4, -5, 6, 7 and 7, and the step is a regression on them.
    w = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.75], "float32")[:, None]
    assert float(least_error_step(w, 0, INT4)[0, 0]) == pytest.approx(19.25 / 189)


def test_least_error_step_of_zeros_is_positive():
    assert float(least_error_step(np.zeros((4, 1), "float32"), 0, INT4)[0, 0]) > 0


def test_least_error_step_of_asymmetric_weights_keeps_the_place_of_0():
    w = np.array([0.0, 1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6, 20], "float32")
    step = least_error_step(w, None, UINT4)
    covering, clipping = weight_grid(w, None, UINT4), weight_grid(w, None, UINT4, step=step)
    assert int(covering.zero_point[0]) == int(clipping.zero_point[0]) == 1 + 3
    assert squared(w, clipping) < 0.9 * squared(w, covering)


def squared(w, grid):
    return float(np.square(np.asarray(clip_weights(w, grid)) - w).sum())


def test_refined_step_is_the_regression_on_the_integers():
    w = np.array([[0.9, 2.2, -2.9, 9.0]], "float32")
    q = np.array([1, 2, -3, 7])
    expected = (q * w[0]).sum() / (q * q).sum()
    assert float(refined_step(np.ones((1, 1), "float32"), w, 1, INT4)[0, 0]) == pytest.approx(
        expected
    )


def test_percentile_step_is_that_of_numpy():
    w = kernel()
    steps = np.asarray(Percentile(90).weight_step(w, (0, 1, 2), INT4)).reshape(-1)
    expected = np.percentile(np.abs(w), 90, axis=(0, 1, 2)) / 7
    np.testing.assert_allclose(steps, expected, rtol=1e-5)


def test_moving_average_step_widens_at_once_and_shrinks_slowly():
    w = np.array([[0.7], [-0.35]], "float32")
    rule, before = MovingAverage(0.75), np.array([[0.2]], "float32")
    assert float(rule.moved_step(before, w, 0, INT4)[0, 0]) == pytest.approx(0.15 + 0.025)
    assert float(rule.moved_step(before / 4, w, 0, INT4)[0, 0]) == pytest.approx(0.1)


def test_weight_rule_of_few_bits_is_the_least_error():
    assert weight_rule(None, get_scheme("int8")) == MinMax()
    assert weight_rule(None, INT4) == Mse()
    assert weight_rule("minmax", INT4) == MinMax()
    with pytest.raises(InvalidRangeRuleError):
        weight_rule("none", INT4)


def test_clip_weights_has_the_gradients_of_lsq():
    """Equations 3 and 5 of https://arxiv.org/abs/1902.08153, for each weight by hand."""
    w = tf.constant([0.26, -0.14, 0.7, 0.74, 5.0, -9.0])
    scale, upstream = tf.constant([0.1]), np.array([1, 2, 4, 8, 16, 32], "float32")
    with tf.GradientTape() as tape:
        tape.watch([w, scale])
        grid = weight_grid(w, None, INT4, step=scale)
        y = clip_weights(w, grid)
        loss = tf.reduce_sum(y * upstream)
    of_weights, of_scale = map(np.asarray, tape.gradient(loss, [w, scale]))
    np.testing.assert_allclose(y, [0.3, -0.1, 0.7, 0.7, 0.7, -0.7], atol=1e-6)
    assert of_weights.tolist() == [1, 2, 4, 0, 0, 0]
    by_weight = np.array([3 - 2.6, -1 + 1.4, 0, 7, 7, -7])
    assert float(of_scale[0]) == pytest.approx((by_weight * upstream).sum(), rel=1e-4)


@pytest.mark.parametrize("rule", [Lsq(), Lsq(0.1)])
def test_learned_step_moves_by_the_scaled_gradient(rule):
    """Gradient descent changes a step by the rate, the multiplier, g and the step's gradient."""
    found = WeightRange(rule, (1, 1))
    found.build()
    w = np.array([[0.5, -0.3, 0.1, 4.0]], "float32")
    found.fit(w, 1.0, 1, INT4)
    step, rate = float(found.step[0, 0]), 0.01
    upstream = np.array([[1.0, 2, 3, 4]], "float32")
    with tf.GradientTape() as tape:
        grid = weight_grid(w, 1, INT4, step=found.trained(1.0, 4, INT4))
        loss = tf.reduce_sum(clip_weights(tf.constant(w), grid) * upstream)
    [gradient] = tape.gradient(loss, [found.factor.value])
    keras.optimizers.SGD(rate).apply([gradient], [found.factor])
    steps = w / step
    q = np.clip(np.rint(steps), -7, 7)
    own = (np.where(np.abs(steps) <= 7, q - steps, q) * upstream).sum() / np.sqrt(4 * 7)
    moved = float(found.current(1.0)[0, 0]) - step
    assert moved == pytest.approx(-rate * rule.learning_rate_multiplier * own, rel=1e-3)


def test_learned_step_has_the_learning_rate_of_the_multiplier_under_adam():
    changes = []
    for multiplier in (1.0, 0.25):
        found = WeightRange(Lsq(multiplier), (1,))
        found.build()
        found.step.assign([3.0])
        keras.optimizers.Adam(0.01).apply([tf.constant([2.0])], [found.factor])
        changes.append(float(found.current(1.0)[0]) / 3 - 1)
    assert changes == pytest.approx([-0.01, -0.0025], rel=1e-3)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_lsq_refuses_invalid_multipliers(value):
    with pytest.raises(InvalidRangeRuleError, match="not positive and finite.* To fix it: "):
        Lsq(value)
