"""AdaRound and bias correction. The oracles are Keras, the interpreter and all roundings."""

import itertools
import tempfile

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.calibration import rounding
from keras_qat.calibration.integer_kernels import integer_kernel
from keras_qat.calibration.rounding import Moments, choose_integers, patches
from keras_qat.calibration.stored_values import StoredValues
from tests import seeds
from tests.models import called, quantized

SHAPE = (5, 5, 4)
DTYPE = "float32"


def data(count=32, seed=0, shape=SHAPE):
    """Makes inputs whose channels depend on each other and have a mean."""
    x = np.random.default_rng(seed).normal(0.5, 1.0, (count, *shape))
    return np.maximum(x + x[..., ::-1], 0).astype(DTYPE)


def one_layer(layer, shape=SHAPE):
    seeds.seed(1)
    model = keras.Sequential([keras.Input(shape), layer])
    if layer.use_bias:
        layer.bias.assign(np.random.default_rng(0).normal(size=layer.bias.shape))
    return model


KERNELS = {
    "conv2d": lambda: layers.Conv2D(6, 3, strides=2, padding="same", name="kernel"),
    "groups": lambda: layers.Conv2D(6, 3, groups=2, dilation_rate=2, name="kernel"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="kernel"),
    "transpose": lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="kernel"),
    "dense": lambda: layers.Dense(6, name="kernel"),
}
SCHEMES = ("int8", "int4", "int8_per_tensor", "uint8")
CASES = [
    pytest.param(
        name, scheme, marks=() if name == "dense" or scheme == "int4" else pytest.mark.slow
    )
    for name in KERNELS
    for scheme in SCHEMES
]


def roundings(targets):
    """Yields all ways to round a vector up or down."""
    for ups in itertools.product((0, 1), repeat=len(targets)):
        yield np.floor(targets) + ups


def loss(integers, targets, x):
    return np.mean((x @ (integers - targets)) ** 2)


@pytest.mark.parametrize("seed", range(4))
def test_choose_integers_is_close_to_the_best_of_all_roundings(seed):
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(0.5, 1, (200, 1)) + rng.normal(0, 0.3, (200, 8)), 0)
    targets = rng.uniform(-5, 5, (8, 6)).astype(DTYPE)
    sums = (x.T @ x / len(x))[None]
    nearest = np.round(targets)
    chosen = choose_integers(targets[None], nearest[None], Moments(sums, sums), (-7, 7))[0]
    best = [min(loss(q, column, x) for q in roundings(column)) for column in targets.T]
    found, usual = (
        np.array([loss(q, t, x) for q, t in zip(each.T, targets.T, strict=True)])
        for each in (chosen, nearest)
    )
    assert np.all(np.isin(chosen - np.floor(targets), (0, 1)))
    assert np.all(found <= usual)
    assert sum(best) < 0.8 * sum(usual)
    assert sum(found) < 1.2 * sum(best)


@pytest.mark.parametrize("name", KERNELS)
def test_patches_times_the_kernel_are_the_output_of_keras(name):
    layer = KERNELS[name]()
    model = one_layer(layer)
    qat, x = keras_qat.quantize_model(model), data(3)
    own = qat.get_layer("kernel")
    kernel = own.kernel_operator.to_matrices(own, ops.convert_to_numpy(own.kernel))
    sums = patches(own, x) @ kernel
    found = sums.swapaxes(0, 1).reshape(-1, sums.shape[0] * sums.shape[2])
    expected = ops.convert_to_numpy(model(x) - layer.bias).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(own.kernel_operator.from_matrices(own, kernel), own.kernel)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name, scheme", CASES)
def test_adaround_chooses_integers_that_lose_less(name, scheme):
    model, x = one_layer(KERNELS[name]()), data()
    qat = keras_qat.quantize_model(model, scheme=scheme)
    keras_qat.calibrate(qat, x, verbose=0)
    own = qat.get_layer("kernel")
    source = ops.convert_to_numpy(own.kernel)
    nearest, scale = integer_kernel(own)

    def error():
        kernel, steps = integer_kernel(own)
        sums = own.kernel_operator.apply(own, x, kernel * steps)
        return float(ops.mean((sums - own.kernel_operator.apply(own, x, source)) ** 2))

    before = error()
    keras_qat.calibrate(qat, x, method="adaround", verbose=0)
    chosen, after = integer_kernel(own)
    assert error() < 0.95 * before
    targets = np.clip(source / scale, chosen.min(), chosen.max())
    assert np.any(chosen != nearest) and np.all(np.abs(chosen - targets) < 1 + 1e-3)
    np.testing.assert_allclose(after, scale, rtol=1e-6)
    moved = ops.convert_to_numpy(own.kernel)
    np.testing.assert_allclose(moved, chosen * scale, rtol=1e-5, atol=1e-7)


def block():
    """Makes a net with batch normalizations, a depthwise layer and a residual connection."""
    seeds.seed(0)
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(3, name="head")(x))
    norm = model.get_layer("bn")
    norm.moving_mean.assign(np.linspace(-0.5, 0.5, 6))
    norm.gamma.assign([1.5, 0.0, -1.0, 1.0, 0.5, 2.0])
    return model


def test_adaround_is_in_the_file_after_saving_and_is_idempotent(tmp_path):
    x = data()
    qat = keras_qat.quantize_model(block(), scheme="int4")
    keras_qat.calibrate(qat, x, method=["adaround", "bias_correction"], verbose=0)
    chosen = keras_qat.integer_weights(qat)
    nearest = keras_qat.integer_weights(quantized_block(x))
    assert any(np.any(chosen[name].values != nearest[name].values) for name in chosen)
    qat.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, tensor in keras_qat.integer_weights(loaded).items():
        assert np.array_equal(tensor.values, chosen[name].values)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", x[:8]).exact
    keras_qat.calibrate(qat, x, method="adaround", verbose=0)
    for name, tensor in keras_qat.integer_weights(qat).items():
        if name.endswith("kernel"):
            assert np.array_equal(tensor.values, chosen[name].values)


def quantized_block(x):
    qat = keras_qat.quantize_model(block(), scheme="int4")
    keras_qat.calibrate(qat, x, verbose=0)
    return qat


def test_adaround_and_bias_correction_bring_the_output_closer_to_float():
    model, x = block(), data(64)
    expected = called(model, x)

    def error(method):
        qat = keras_qat.quantize_model(model, scheme="int4")
        keras_qat.calibrate(qat, x, method=method, verbose=0)
        return np.mean((called(qat, x) - expected) ** 2)

    usual, corrected = error(()), error("bias_correction")
    assert corrected < 0.7 * usual
    assert error(["bias_correction", "adaround"]) < corrected


def test_adaround_keeps_zeros():
    model = one_layer(layers.Dense(6, name="kernel"), (8,))
    kernel = ops.convert_to_numpy(model.layers[-1].kernel) * (np.arange(8)[:, None] % 2)
    model.layers[-1].kernel.assign(kernel)
    qat = keras_qat.quantize_model(model, scheme="int4")
    keras_qat.calibrate(qat, data(shape=(8,)), method="adaround", verbose=0)
    chosen = integer_kernel(qat.get_layer("kernel"))[0]
    assert np.all(chosen[kernel == 0] == 0) and np.any(chosen != 0)


def test_bias_correction_removes_the_mean_error_of_each_channel():
    model, x = block(), data(64)
    qat = quantized_block(x)

    def shift(name):
        real = keras.Model(model.inputs, model.get_layer(name).output)
        integer = keras_qat.layers.QuantizedModel(qat.inputs, qat.get_layer(name).output)
        means = [called(each, [x]).mean(axis=0) for each in (real, integer)]
        return np.abs(means[0] - means[1]).max()

    before = shift("head")
    keras_qat.calibrate(qat, x, method="bias_correction", verbose=0)
    step = float(qat.get_layer("head").neighbours.output.grid().scale)
    assert before > step and shift("head") < step / 2


def test_bias_correction_leaves_layers_without_a_bias():
    model = one_layer(layers.Dense(3, use_bias=False, name="kernel"), (8,))
    qat, x = keras_qat.quantize_model(model, scheme="int4"), data(shape=(8,))
    before = ops.convert_to_numpy(qat.get_layer("kernel").kernel)
    keras_qat.calibrate(qat, x, method="bias_correction", verbose=0)
    assert np.array_equal(before, qat.get_layer("kernel").kernel)


def test_reconstruction_leaves_float_layers_and_shared_weights():
    dense = layers.Dense(8, name="shared")
    x = keras.Input((8,))
    y = layers.Dense(8, name="real")(dense(layers.ReLU()(dense(x))))
    qat = keras_qat.quantize_model(
        keras.Model(x, layers.Dense(2, name="own")(y)), scheme="int4", overrides={"real": None}
    )
    before = {v.path: ops.convert_to_numpy(v) for v in qat.trainable_variables}
    methods = ["bias_correction", "adaround"]
    keras_qat.calibrate(qat, data(shape=(8,)), method=methods, verbose=0)
    changed = {
        v.path.partition("/")[0]
        for v in qat.trainable_variables
        if not np.array_equal(before[v.path], v)
    }
    assert changed == {"own"}


def test_calibrate_shows_the_progress_of_reconstruction(capsys):
    qat = quantized(one_layer(layers.Dense(2, name="kernel"), (8,)), data(shape=(8,)))
    keras_qat.calibrate(qat, data(shape=(8,)), method="adaround")
    assert "layer" in capsys.readouterr().out


def test_reconstruction_keeps_tensors_in_files_while_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    counts, append = [], StoredValues.append

    def counted(values, array):
        append(values, array)
        counts.append(sum(1 for _ in tmp_path.rglob("*.npy")))

    monkeypatch.setattr(StoredValues, "append", counted)
    steps = [layers.Dense(4, activation="relu", name=f"dense_{i}") for i in range(6)]
    qat = keras_qat.quantize_model(keras.Sequential([keras.Input((4,)), *steps]))
    batches = list(data(8, shape=(4,)).reshape(2, 4, 4))
    keras_qat.calibrate(qat, batches, method="bias_correction", verbose=0)
    # The input and the output of a layer, in float and in integers, of two batches.
    assert len(counts) > 24 and max(counts) == 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["depthwise", "transpose"])
def test_moments_of_parts_are_those_of_whole_batches(name, monkeypatch):
    layer = KERNELS[name]()
    qat, x = keras_qat.quantize_model(one_layer(layer)), data(6).reshape(2, 3, *SHAPE)
    own = qat.get_layer("kernel")
    whole = rounding._moments(own, list(x), list(x + 0.1), False)
    monkeypatch.setattr(rounding, "_MOST_VALUES", 1)
    assert len(list(rounding._sampled(own, list(x), list(x)))) == 6
    for parts, expected in zip(
        rounding._moments(own, list(x), list(x + 0.1), False), whole, strict=True
    ):
        np.testing.assert_allclose(parts, expected, rtol=1e-5)
