import numpy as np
import pytest
from keras import ops

from keras_qat.quantizers import fake_quantize
from tests.quantizers.modes import in_all_modes, on_tensorflow

LOW, HIGH = -128, 127


def rounded(x, scale, zero_point):
    """Computes the rule in double precision. The rounding of ties is not specified."""
    q = np.clip(np.rint(np.float64(x) / scale) + zero_point, LOW, HIGH)
    return ((q - zero_point) * scale).astype("float32")


@pytest.mark.parametrize("zero_point", [-128, -3, 0, 127])
@pytest.mark.parametrize("exponent", [-6, 0, 5])
def test_fake_quantize_is_exact_at_power_of_two_scales(exponent, zero_point):
    scale = np.float32(2.0**exponent)
    steps = np.arange(-3000, 3000) / 8  # beyond both limits
    x = np.float32(steps[steps % 1 != 0.5] * scale)
    y = fake_quantize(x, scale, np.int32(zero_point), LOW, HIGH)
    assert (np.asarray(y) == rounded(x, scale, zero_point)).all()


@pytest.mark.parametrize("seed", range(5))
def test_fake_quantize_gives_the_nearest_value_on_the_grid(seed):
    rng = np.random.default_rng(seed)
    scale, zero_point = np.float32(rng.uniform(0.001, 2)), np.int32(rng.integers(LOW, HIGH + 1))
    x = np.asarray(rng.normal(0, 100 * scale, 5000), "float32")
    y = np.asarray(fake_quantize(x, scale, zero_point, LOW, HIGH))
    grid = np.float32(np.arange(LOW, HIGH + 1) - zero_point) * scale
    last_bits = 1e-6 * np.abs(grid).max()  # real values of integers may be rounded differently
    assert (np.abs(y[:, None] - grid).min(axis=1) <= last_bits).all()
    nearest = np.abs(x.astype("float64")[:, None] - grid).min(axis=1)
    assert (np.abs(np.float64(x) - y) <= nearest * (1 + 1e-4) + last_bits).all()


def test_fake_quantize_keeps_zero():
    for zero_point in (LOW, 0, HIGH):
        assert float(fake_quantize(np.float32(0), 0.3, np.int32(zero_point), LOW, HIGH)) == 0


def test_fake_quantize_takes_limits_of_any_width():
    x = np.array([-99, -1.2, 1.2, 99], "float32")
    y = fake_quantize(x, np.float32(0.5), np.int32(0), -8, 7)
    assert np.asarray(y).tolist() == [-4, -1, 1, 3.5]


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_fake_quantize_gradient_is_one_inside_and_on_the_limits(jit_compile):
    import tensorflow as tf

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            # 4 bits, zero point 2: from -10 * 0.5 to 5 * 0.5.
            y = 3 * fake_quantize(x, tf.constant(0.5), tf.constant(2), -8, 7)
        return tape.gradient(y, x)

    run = gradient if jit_compile is None else tf.function(gradient, jit_compile=jit_compile)
    below, above = np.nextafter(np.array([-5, 2.5], "float32"), np.array([-9, 9], "float32"))
    x = np.array([below, -5, -4.9, 0, 0.25, 2.4, 2.5, above, 99], "float32")
    assert run(tf.constant(x)).numpy().tolist() == [0, 3, 3, 3, 3, 3, 3, 0, 0]


@on_tensorflow
def test_fake_quantize_has_no_gradient_to_the_scale():
    import tensorflow as tf

    scale = tf.Variable(tf.constant(0.5))
    with tf.GradientTape() as tape:
        y = fake_quantize(tf.constant([0.3, 99.0]), scale, tf.constant(0), LOW, HIGH)
    assert tape.gradient(y, scale) is None


@on_tensorflow
def test_fake_quantize_is_equal_in_all_modes():
    x = np.random.default_rng(0).normal(0, 20, 2000).astype("float32")
    outputs = in_all_modes(
        lambda x, scale, zero_point: fake_quantize(x, scale, zero_point, LOW, HIGH),
        x,
        np.float32(0.25),
        np.int32(5),
    )
    assert (outputs[0] == outputs[1]).all() and (outputs[0] == outputs[2]).all()


def test_fake_quantize_keeps_shape_and_dtype():
    y = fake_quantize(np.zeros((2, 3), "float32"), 0.5, np.int32(0), LOW, HIGH)
    assert y.shape == (2, 3) and ops.dtype(y) == "float32"
