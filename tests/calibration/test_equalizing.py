"""Cross-layer equalization. The oracles are the float model in Keras and numbers by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.calibration.equalizing import find_pairs
from keras_qat.errors import InvalidDataError, InvalidMethodError
from keras_qat.graph import read_model
from keras_qat.layers.models.quantized_model import float_mode
from tests import seeds
from tests.models import called, images, linear, randomized

SHAPE = (6, 6, 4)


def pairs(model):
    return [(pair.first.name, pair.second.name) for pair in find_pairs(read_model(model))]


def in_float(model, x, training=False):
    with float_mode():
        return ops.convert_to_numpy(model(x, training=training))


def equalized(model, x, scheme="int8_per_tensor"):
    quantized = keras_qat.quantize_model(model, scheme=scheme)
    keras_qat.calibrate(quantized, x, method="equalize", verbose=0)
    return quantized


KERNELS = (
    lambda rng: layers.Conv2D(4, 3, padding="same", use_bias=bool(rng.integers(2))),
    lambda rng: layers.Conv2D(4, 1, groups=2),
    lambda rng: layers.DepthwiseConv2D(3, padding="same", use_bias=bool(rng.integers(2))),
    lambda rng: layers.Conv2DTranspose(4, 2, padding="same"),
    lambda rng: layers.Dense(4),
)
ACTIVATIONS = (
    lambda: [],
    lambda: [layers.ReLU()],
    lambda: [layers.ReLU(6.0)],
    lambda: [layers.LeakyReLU(0.25)],
    lambda: [layers.PReLU(shared_axes=[1, 2], alpha_initializer="glorot_uniform")],
)
PASSED = (
    lambda: [],
    lambda: [layers.BatchNormalization()],
    lambda: [layers.BatchNormalization(center=False)],
    lambda: [layers.BatchNormalization(scale=False)],
    lambda: [layers.ZeroPadding2D(1)],
    lambda: [layers.MaxPooling2D(2, padding="same")],
    lambda: [layers.AveragePooling2D(2, padding="same")],
)


def random_model(seed):
    """Makes a chain of five random layers with a kernel, and of what may stand between them."""
    rng = np.random.default_rng(seed)
    seeds.seed(seed)
    found = [keras.Input(SHAPE)]
    for _ in range(4):
        found.append(KERNELS[rng.integers(len(KERNELS))](rng))
        norm = PASSED[rng.integers(len(PASSED))]()
        found += [*norm, *ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()]
    found += [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = randomized(keras.Sequential(found), seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            factors = np.exp(rng.normal(0, 1, layer.kernel.shape[-1:]))
            layer.kernel.assign(ops.convert_to_numpy(layer.kernel) * factors.astype("float32"))
    return model


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))]
)
def test_equalize_keeps_the_float_function_of_random_models(seed):
    model, x = random_model(seed), images(6, seed, SHAPE) * 4 - 2
    expected = ops.convert_to_numpy(model(x))
    quantized = keras_qat.quantize_model(model, scheme="int8_per_tensor")
    before = [ops.convert_to_numpy(each) for each in quantized.trainable_variables]
    keras_qat.calibrate(quantized, x, method=["equalize"], verbose=0)
    size = np.abs(expected).max()
    np.testing.assert_allclose(in_float(quantized, x), expected, rtol=0, atol=1e-5 * size)
    after = [ops.convert_to_numpy(each) for each in quantized.trainable_variables]
    are_equal = all(map(np.array_equal, before, after))
    assert pairs(quantized) and not are_equal
    if not any(isinstance(layer, layers.ReLU) and layer.max_value for layer in model.layers):
        trained = ops.convert_to_numpy(model(x, training=True))
        size = np.abs(trained).max()
        found = in_float(quantized, x, training=True)
        np.testing.assert_allclose(found, trained, rtol=0, atol=1e-4 * size)


def test_equalize_gives_both_layers_equal_ranges():
    first, second = layers.Dense(2, name="a"), layers.Dense(1, name="b")
    model = keras.Sequential([keras.Input((2,)), first, second])
    first.kernel.assign([[8.0, 0.5], [0.0, 0.0]])
    second.kernel.assign([[0.5], [8.0]])
    quantized = equalized(model, np.array([[1.0, 1.0]], "float32"))
    # The roots of 8 / 0.5 and 0.5 / 8 are 4 and 1/4.
    kernels = [ops.convert_to_numpy(quantized.get_layer(name).kernel) for name in "ab"]
    np.testing.assert_allclose(kernels[0], [[2.0, 2.0], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(kernels[1], [[2.0], [2.0]], rtol=1e-6)


def capped(value, cap=6.0):
    """Makes a ReLU6 between channels of unequal weights. The first one is `value` on ones."""
    first, second = layers.Dense(3, name="a"), layers.Dense(1, name="b")
    model = keras.Sequential([keras.Input((1,)), first, layers.ReLU(cap), second])
    first.kernel.assign([[value, 0.05, 0.5]])
    second.kernel.assign([[1.0], [1.0], [1.0]])
    return model


def test_equalize_keeps_channels_that_reach_the_cap():
    x = np.ones((1, 1), "float32")
    quantized = equalized(capped(7.0), x)
    kernel = ops.convert_to_numpy(quantized.get_layer("a").kernel)[0]
    assert kernel[0] == 7.0 and kernel[1] > 0.1
    assert in_float(quantized, x) == pytest.approx(6.55, rel=1e-6)


def test_equalize_moves_no_channel_beyond_the_cap():
    model = capped(1.0)
    model.get_layer("b").kernel.assign([[1.0], [100.0], [1.0]])
    x = np.full((1, 1), 5.9, "float32")
    expected = model(x)
    np.testing.assert_allclose(in_float(equalized(model, x), x), expected, rtol=1e-6)


def test_equalize_makes_no_channel_larger_than_the_largest_was():
    # The weights of the second channel are tiny, its bias is not.
    first, second = layers.Dense(2, name="a"), layers.Dense(1, name="b")
    model = keras.Sequential([keras.Input((1,)), first, second])
    first.set_weights([np.array([[1.0, 1e-6]]), np.array([0.0, 0.5])])
    second.kernel.assign([[1.0], [1.0]])
    quantized = equalized(model, np.ones((1, 1), "float32"))
    low, high = quantized.get_layer("a").observer.limits
    assert low >= 0.0 and high == pytest.approx(1.0, rel=1e-5)


def split(join):
    x = keras.Input(SHAPE)
    y = layers.Conv2D(4, 1, name="a")(x)
    return keras.Model(x, join(y))


def shared():
    dense = layers.Dense(4, name="a")
    x = keras.Input(SHAPE)
    return keras.Model(x, dense(layers.ReLU()(dense(x))))


def conv(**arguments):
    return layers.Conv2D(4, 1, name="b", **arguments)


NOT_PAIRS = {
    "residual": lambda: split(lambda y: layers.Add()([y, conv()(y)])),
    "two_outputs": lambda: split(lambda y: [y, conv()(y)]),
    "flatten": lambda: split(lambda y: layers.Dense(2)(layers.Flatten()(y))),
    "swish": lambda: split(lambda y: conv()(keras.activations.silu(y))),
    "padding_of_ones": lambda: split(
        lambda y: conv()(ops.pad(y, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0))
    ),
    "noise": lambda: split(lambda y: conv()(layers.GaussianNoise(0.1)(y))),
    "shared_weights": shared,
    "no_factor": lambda: split(
        lambda y: conv()(layers.ReLU()(layers.BatchNormalization(scale=False)(y)))
    ),
}


@pytest.mark.parametrize("name", NOT_PAIRS)
def test_find_pairs_leaves_out(name):
    assert pairs(keras_qat.quantize_model(NOT_PAIRS[name]())) == []


def test_find_pairs_leaves_out_float_layers():
    model = split(conv())
    assert pairs(keras_qat.quantize_model(model)) == [("a", "b")]
    assert pairs(keras_qat.quantize_model(model, overrides={"a": None, "b": None})) == []


def test_equalize_survives_saving_and_export(tmp_path):
    x = images(4, 0, SHAPE)
    quantized = equalized(random_model(3), x)
    quantized.save(tmp_path / "model.keras")
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(called(loaded, x), called(quantized, x))
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", x).exact


@pytest.mark.parametrize("method", ["equalise", ["equalize", "x"], None, 3, [3]])
def test_calibrate_refuses_unknown_methods(method):
    quantized = keras_qat.quantize_model(linear())
    with pytest.raises(InvalidMethodError, match="equalize"):
        keras_qat.calibrate(quantized, np.ones((2, 4), "float32"), method=method, verbose=0)


def test_calibrate_with_bad_data_changes_no_weight():
    model = split(conv())
    quantized = keras_qat.quantize_model(model)
    before = quantized.get_weights()
    bad = [np.ones((1, *SHAPE)), np.full((1, *SHAPE), np.nan)]
    with pytest.raises(InvalidDataError):
        keras_qat.calibrate(quantized, bad, method="equalize", verbose=0)
    assert all(map(np.array_equal, before, quantized.get_weights()))


def test_calibrate_reads_a_generator_once():
    x = images(4, 0, SHAPE)
    quantized = [keras_qat.quantize_model(random_model(3)) for _ in range(2)]
    keras_qat.calibrate(quantized[0], x, method="equalize", verbose=0)
    batches = (x[i : i + 2] for i in (0, 2))
    keras_qat.calibrate(quantized[1], batches, method="equalize", verbose=0)
    found = [called(model, x) for model in quantized]
    assert np.array_equal(*found)
