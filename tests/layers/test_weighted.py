"""Layers with a kernel: folding, training, configuration."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qat
from keras_qat.errors import NotQuantizedError
from keras_qat.layers import QAdd, QConv2D, QDense, QDepthwiseConv2D, QMaxPooling2D, QSoftmax
from tests.layers.cases import randomize
from tests.layers.litert_files import constants_of, exported

layers = keras.layers


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(32, 5, 5, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Makes a convolution with batch normalization and random weights."""
    model = keras.Sequential(
        [
            keras.Input((5, 5, 3)),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
        ]
    )
    randomize(model, np.random.default_rng(1))
    return model


def test_exported_kernel_is_folded(model, x):
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    constants = constants_of(exported(quantized))
    conv, norm = model.get_layer("conv"), model.get_layer("norm")
    kernel, bias = (value.numpy().astype("float64") for value in (conv.kernel, conv.bias))
    gamma, beta, mean, variance = (value.numpy().astype("float64") for value in norm.weights)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    folded, shifted = kernel * factor, (bias - mean) * factor + beta
    q, scale = constants["conv/kernel"]
    used = factor != 0
    largest = np.abs(folded).max((0, 1, 2))
    np.testing.assert_allclose(scale[used], largest[used] / 127, rtol=1e-6)
    expected = np.rint(folded[..., used] / scale[used])
    np.testing.assert_array_equal(np.moveaxis(q, 0, -1)[..., used], expected)
    q, scale = constants["conv/bias"]
    # The bias has two terms. Each is rounded.
    assert np.all(np.abs(q - shifted / scale) <= 1.01)


def test_folded_kernel_with_a_gamma_of_zero_has_a_gradient(model, x):
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    gamma = quantized.get_layer("conv").batch_normalization.gamma
    assert float(gamma[0]) == 0.0
    with tf.GradientTape() as tape:
        y = quantized(x, training=True)
        loss = tf.reduce_sum(y * np.random.default_rng(2).normal(size=y.shape).astype("float32"))
    assert tape.gradient(loss, gamma.value)[0] != 0.0


def test_folded_conv_normalizes_with_the_batch_at_training(model, x):
    quantized = keras_qat.quantize_model(model)
    y = quantized(x, training=True).numpy()
    norm = model.get_layer("norm")
    step = (y.max() - y.min()) / 255
    assert np.all(np.abs(y.mean((0, 1, 2)) - norm.beta.numpy()) < step)
    assert np.all(np.abs(y.std((0, 1, 2)) - np.abs(norm.gamma.numpy())) < step)


def test_quantized_conv_stays_frozen(x):
    model = keras.Sequential(
        [keras.Input((5, 5, 3)), layers.Conv2D(2, 1, name="conv", trainable=False)]
    )
    quantized = keras_qat.quantize_model(model)
    assert quantized.trainable_weights == []


def test_quantized_conv_keeps_regularizers_and_constraints():
    conv = layers.Conv2D(
        2, 1, kernel_regularizer="l2", kernel_constraint="non_neg", name="conv", padding="same"
    )
    made = keras_qat.quantize_model(keras.Sequential([keras.Input((5, 5, 3)), conv]))
    config = made.get_layer("conv").get_config()
    expected = conv.get_config()
    different = {key for key in expected if config[key] != expected[key]}
    assert different <= {"dtype"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: QConv2D(3, 3, batch_norm={"momentum": 0.5}, activation="relu6", scheme="int8"),
        lambda: QDepthwiseConv2D(3, batch_norm=True, scheme="int8"),
        lambda: QDense(3, activation="relu"),
    ],
)
def test_layer_configuration_makes_an_equal_layer(make):
    made = make()
    again = type(made).from_config(made.get_config())
    assert again.get_config() == made.get_config()


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (QConv2D(2, 1, scheme="int8"), [(1, 4, 4, 2)]),
        (QDense(2, scheme="int8"), [(1, 4)]),
        (QAdd(scheme="int8"), [(1, 4), (1, 4)]),
        (QSoftmax(scheme="int8"), [(1, 4)]),
        (QMaxPooling2D(scheme="int8"), [(1, 4, 4, 2)]),
    ],
)
def test_quantized_layer_refuses_a_call_outside_a_quantized_model(layer, shapes):
    arrays = [np.ones(shape, "float32") for shape in shapes]
    with pytest.raises(NotQuantizedError, match="quantize_model"):
        layer(arrays if len(arrays) > 1 else arrays[0])


def test_layer_without_scheme_is_the_keras_layer():
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    ours, theirs = QDense(3, activation="relu"), layers.Dense(3, activation="relu")
    ours.build(x.shape)
    theirs.build(x.shape)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("scale", [True, False], ids=["gamma", "no gamma"])
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_integer_weights_are_equal_for_all_compilers(scale, xla):
    """There are many channels, to find a last bit that differs in one scale of a hundred."""
    layer = QDense(5000, batch_norm={"scale": scale}, scheme="int8")
    layer.build((None, 3))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        if len(weight.shape) and weight.name != "moving_variance":
            weight.assign(rng.normal(size=weight.shape))
        elif len(weight.shape):
            weight.assign(np.exp(rng.normal(0, 2, weight.shape)))
    scales = tf.constant(0.0172), tf.constant(0.0231)
    compiled = tf.function(layer.integer_weights, jit_compile=xla, autograph=False)
    eager, other = layer.integer_weights(*scales), compiled(*scales)
    for name, mine, theirs in zip(eager._fields, eager, other, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(4, "gelu", name="adapted"),
        lambda: layers.Conv2D(4, 3, name="adapted"),
    ],
)
def test_kernel_has_low_rank_weights_merged(x, layer):
    model = keras.Sequential([keras.Input((5, 5, 3)), layer(), layers.BatchNormalization()])
    model.get_layer("adapted").enable_lora(2)
    randomize(model, np.random.default_rng(4))
    clone = keras_qat.clone_model(model)
    assert not any("lora" in weight.path for weight in clone.weights)
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-4, atol=1e-5)
    kernel = clone.get_layer("adapted").kernel
    np.testing.assert_allclose(kernel, model.get_layer("adapted").kernel, rtol=1e-5)
