import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_qat.quantizers import (
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_scale,
)
from tests.quantizers.modes import in_all_modes, on_tensorflow

positive = st.floats(2.0**-90, 2.0**90, width=32)


def kernel(seed, shape=(3, 3, 5, 8)):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * np.exp2(rng.uniform(-9, 4, shape[-1]))).astype("float32")


def integers(weights, axis, high=127):
    scale = weight_scale(weights, axis, high)
    return np.asarray(quantize_weights(weights, scale, high)), np.asarray(scale)


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_weight_of_each_channel_maps_to_127(seed):
    weights = kernel(seed)
    q, scale = integers(weights, (0, 1, 2))
    assert scale.shape == (1, 1, 1, 8)
    assert (np.abs(q).max(axis=(0, 1, 2)) == 127).all() and (q == np.rint(q)).all()
    sign = np.sign(q).astype("float32")
    assert (sign * np.sign(weights) >= 0).all()
    assert (np.abs(q - np.float64(weights) / scale) <= 0.5 + 1e-4).all()


@given(positive, st.sampled_from([7, 127]))
def test_the_largest_weight_of_any_size_maps_to_the_largest_integer(size, high):
    q, _ = integers(np.array([size, -size, size / 2, 0], "float32"), None, high)
    assert q[:2].tolist() == [high, -high] and q[3] == 0


def test_one_scale_for_a_tensor():
    q, scale = integers(np.array([[127, -3], [4.4, -63.5]], "float32"), None)
    assert scale.shape == (1, 1) and float(scale[0, 0]) == 1
    assert q.tolist() == [[127, -3], [4, -64]]  # ties to even


def test_a_channel_of_zeros_has_a_positive_scale_and_integers_of_zero():
    weights = np.array([[0, 1], [0, -2]], "float32")
    q, scale = integers(weights, 0)
    assert scale[0, 0] > 0 and q[:, 0].tolist() == [0, 0]
    assert q[:, 1].tolist() == [64, -127]
    y = np.asarray(fake_quantize_weights(weights, scale, 127))
    assert np.isfinite(y).all() and y[:, 0].tolist() == [0, 0]


def test_the_range_is_narrow():
    q = np.asarray(quantize_weights(np.array([-9, 9], "float32"), np.float32(0.01), 127))
    assert q.tolist() == [-127, 127]


@pytest.mark.parametrize("seed", range(3))
def test_fake_quantization_gives_the_real_values_of_the_integers(seed):
    weights = kernel(seed)
    q, scale = integers(weights, (0, 1, 2))
    y = np.asarray(fake_quantize_weights(weights, scale, 127))
    # `weights + (rounded - weights)` differs from `rounded` by the last bit.
    assert (np.abs(y - q * scale) <= 1e-4 * scale).all()


@on_tensorflow
def test_the_gradient_passes_straight_through_the_largest_weight_too():
    import tensorflow as tf

    weights = tf.constant([[0.5, -1.0], [1.0, 0.1]])
    scale = weight_scale(weights, 0, 127)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = 2 * fake_quantize_weights(weights, scale, 127)
    assert np.asarray(tape.gradient(y, weights)).tolist() == [[2, 2], [2, 2]]


@given(positive)
def test_reciprocal_is_rounded_once(x):
    assert np.float32(reciprocal(np.float32(x))) == np.float32(1 / np.float64(np.float32(x)))


@on_tensorflow
def test_all_ways_of_running_it_agree():
    def everything(weights, factor):
        folded = weights * factor
        scale = weight_scale(folded, (0, 1, 2), 127)
        return scale, quantize_weights(folded, scale, 127), weights * reciprocal(scale)

    factor = np.random.default_rng(9).uniform(0.5, 2, 8).astype("float32")
    eager, graph, xla = in_all_modes(everything, kernel(7), factor)
    for a, b, c in zip(eager, graph, xla, strict=True):
        assert (a == b).all() and (a == c).all()
