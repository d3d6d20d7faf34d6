import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_qat.quantizers import (
    WeightGrid,
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_grid,
)
from keras_qat.scheme import Scheme, get_scheme
from tests.quantizers.modes import in_all_modes, on_tensorflow

positive = st.floats(2.0**-90, 2.0**90, width=32)


def kernel(seed, shape=(3, 3, 5, 8)):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * np.exp2(rng.uniform(-9, 4, shape[-1]))).astype("float32")


INT8, UINT8 = get_scheme("int8"), get_scheme("uint8")


def integers(weights, axis, scheme=INT8):
    grid = weight_grid(weights, axis, scheme)
    return np.asarray(quantize_weights(weights, grid)), np.asarray(grid.scale)


@pytest.mark.parametrize("seed", range(5))
def test_quantize_weights_maps_the_largest_of_each_channel_to_127(seed):
    weights = kernel(seed)
    q, scale = integers(weights, (0, 1, 2))
    assert scale.shape == (1, 1, 1, 8)
    assert (np.abs(q).max(axis=(0, 1, 2)) == 127).all() and (q == np.rint(q)).all()
    sign = np.sign(q).astype("float32")
    assert (sign * np.sign(weights) >= 0).all()
    assert (np.abs(q - np.float64(weights) / scale) <= 0.5 + 1e-4).all()


@given(positive, st.sampled_from([4, 8]))
def test_quantize_weights_maps_any_largest_weight_to_the_largest_integer(size, bits):
    scheme, high = Scheme("other", weight_bits=bits), 2 ** (bits - 1) - 1
    q, _ = integers(np.array([size, -size, size / 2, 0], "float32"), None, scheme)
    assert q[:2].tolist() == [high, -high] and q[3] == 0


def test_quantize_weights_with_one_scale_per_tensor():
    q, scale = integers(np.array([[127, -3], [4.4, -63.5]], "float32"), None)
    assert scale.shape == (1, 1) and float(scale[0, 0]) == 1
    assert q.tolist() == [[127, -3], [4, -64]]  # ties to even


def test_quantize_weights_of_a_channel_of_zeros():
    weights = np.array([[0, 1], [0, -2]], "float32")
    q, scale = integers(weights, 0)
    assert scale[0, 0] > 0 and q[:, 0].tolist() == [0, 0]
    assert q[:, 1].tolist() == [64, -127]
    y = np.asarray(fake_quantize_weights(weights, 0, INT8))
    assert np.isfinite(y).all() and y[:, 0].tolist() == [0, 0]


def test_quantize_weights_clips_to_the_narrow_range():
    q = np.asarray(quantize_weights(np.array([-9, 9], "float32"), WeightGrid(0.01, 0, -127, 127)))
    assert q.tolist() == [-127, 127]


@pytest.mark.parametrize("seed", range(3))
def test_fake_quantize_weights_gives_the_real_values_of_the_integers(seed):
    weights = kernel(seed)
    q, scale = integers(weights, (0, 1, 2))
    y = np.asarray(fake_quantize_weights(weights, (0, 1, 2), INT8))
    # `weights + (rounded - weights)` differs from `rounded` by the last bit.
    assert (np.abs(y - q * scale) <= 1e-4 * scale).all()


@on_tensorflow
def test_fake_quantize_weights_gradient_is_straight_through():
    import tensorflow as tf

    weights = tf.constant([[0.5, -1.0], [1.0, 0.1]])
    factor = tf.constant([[3.0, 0.7]])
    with tf.GradientTape() as tape:
        tape.watch([weights, factor])
        y = 2 * fake_quantize_weights(weights, 0, INT8, factor=factor)
    of_weights, of_factor = tape.gradient(y, [weights, factor])
    assert np.asarray(of_weights).tolist() == [[2, 2], [2, 2]] and of_factor is None


def test_fake_quantize_weights_rounds_the_weights_times_a_factor():
    weights, factor, axes = kernel(0), np.array([0.5, 2, 1, -4] * 2, "float32"), (0, 1, 2)
    q, scale = integers(weights * factor, axes)
    y = np.asarray(fake_quantize_weights(weights, axes, INT8, factor=factor))
    assert (np.abs(y * factor - q * scale) <= 1e-4 * scale).all()
    least = 5 * scale
    y = fake_quantize_weights(weights, axes, INT8, factor=factor, least_scale=least)
    expected = np.rint(weights * factor / least) * least
    assert (np.abs(np.asarray(y) * factor - expected) <= 1e-4 * least).all()


@given(positive)
def test_reciprocal_is_rounded_once(x):
    assert np.float32(reciprocal(np.float32(x))) == np.float32(1 / np.float64(np.float32(x)))


@on_tensorflow
def test_weight_grid_and_quantize_weights_are_equal_in_all_modes():
    def everything(weights, factor):
        folded = weights * factor
        found = []
        for scheme in (INT8, UINT8):
            grid = weight_grid(folded, (0, 1, 2), scheme)
            found += [grid.scale, quantize_weights(folded, grid), weights * reciprocal(grid.scale)]
        return found

    factor = np.random.default_rng(9).uniform(0.5, 2, 8).astype("float32")
    eager, graph, xla = in_all_modes(everything, kernel(7), factor)
    for a, b, c in zip(eager, graph, xla, strict=True):
        assert (a == b).all() and (a == c).all()


def test_weight_grid_of_uint8_uses_the_narrow_range_of_tensorflow_1():
    """A step of [-0.5, 2.04] is 2.54 / 254. The smallest is 1, the largest 255, and 0.0 is 51."""
    weights = np.array([[-0.5, 2.04], [0.0, 0.014]], "float32")
    grid = weight_grid(weights, None, UINT8)
    assert abs(float(grid.scale[0, 0]) - 0.01) < 1e-9 and int(grid.zero_point[0, 0]) == 51
    q = np.asarray(quantize_weights(weights, grid)) + np.asarray(grid.zero_point)
    assert q.tolist() == [[1, 255], [51, 52]]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8))
def test_weight_grid_of_uint8_has_an_integer_for_zero(values):
    weights = np.array(values, "float32")
    grid = weight_grid(weights, None, UINT8)
    zero_point = np.asarray(grid.zero_point).item()
    q = np.asarray(quantize_weights(weights, grid)) + zero_point
    assert 1 <= zero_point <= 255 and q.min() >= 1 and q.max() <= 255
    away = np.abs((q - zero_point) * np.float64(grid.scale[0]) - weights)
    # Half a step, plus half a step for the rounded zero point if a weight is clipped.
    assert away.max() <= 1.01 * float(grid.scale[0])


@pytest.mark.parametrize(("sign", "zero_point"), [(1, 1), (-1, 255)])
def test_weight_grid_of_uint8_for_weights_of_one_sign(sign, zero_point):
    grid = weight_grid(sign * np.array([1.0, 2.54], "float32"), None, UINT8)
    assert np.asarray(grid.zero_point).item() == zero_point
