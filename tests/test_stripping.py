"""strip_quantization: the quantized model in float, of Keras layers only."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import NotQuantizedError
from tests.layers.cases import first_of_each, randomize
from tests.layers.test_contract import CASES
from tests.models import images, labels, network

ACTIVATIONS = ["relu6", "silu", "gelu", "hard_silu", "sigmoid", "softmax", "tanh"]


def arrays(outputs):
    return [np.asarray(y) for y in keras.tree.flatten(outputs)]


def assert_plain(model):
    """Checks that the configuration has no class of this package."""
    assert "keras_qat" not in json.dumps(model.get_config(), default=str)
    assert all(
        not type(each).__module__.startswith("keras_qat") for each in model._flatten_layers()
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", first_of_each(CASES))
def test_strip_of_every_rule(case):
    rng = np.random.default_rng(0)
    model = case.build()
    case.prepare(model, rng)
    data = case.data(model, rng, 4)
    data = data[0] if len(data) == 1 else data
    clone = keras_qat.clone_model(model)
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    assert_plain(plain)
    assert [x.name for x in plain.inputs] == [x.name for x in clone.inputs]
    for mine, expected in zip(
        arrays(plain(data, training=False)), arrays(clone(data)), strict=True
    ):
        size = max(float(np.abs(expected).max()), 1e-6)
        np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-5 * size)


def names_of(model):
    return [layer.name for layer in model.layers]


def named_network():
    image = keras.Input((8, 8, 3), name="image")
    y = layers.ZeroPadding2D(2, name="pad")(image)
    y = layers.Conv2D(4, 3, activation="relu", name="first")(y)
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="second")(y)
    y = layers.ReLU(6.0, name="second_relu6")(layers.BatchNormalization(name="second_norm")(y))
    z = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    z = layers.Activation("swish", name="swish")(layers.BatchNormalization(name="norm")(z))
    y = layers.Activation("relu", name="end")(layers.Add(name="add")([y, z]))
    y = layers.BatchNormalization(name="alone")(layers.MaxPooling2D(name="pool")(y))
    y = layers.UpSampling2D(2, interpolation="bilinear", name="up")(y)
    y = layers.LeakyReLU(0.1, name="leaky")(layers.Dropout(0.3, name="drop")(y))
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(y), name="named")


def test_strip_restores_names_and_arguments():
    model = named_network()
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    assert plain.name == "named"
    assert names_of(plain) == names_of(model) and plain.output_names == model.output_names
    for layer in model.layers:
        again = plain.get_layer(layer.name)
        if not isinstance(layer, layers.Activation | layers.ReLU):
            assert type(again) is type(layer)
    assert plain.get_layer("drop").rate == 0.3
    for name, activation in (("first", "relu"), ("second", "linear"), ("head", "softmax")):
        assert plain.get_layer(name).activation is getattr(keras.activations, activation)


def test_strip_keeps_trained_weights():
    model, data = named_network(), np.random.default_rng(0).normal(size=(16, 8, 8, 3))
    quantized = keras_qat.quantize_model(model)
    quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(data, np.arange(16) % 3, epochs=2, verbose=0)
    plain = keras_qat.strip_quantization(quantized)
    conv, norm = plain.get_layer("second"), plain.get_layer("second_norm")
    block = quantized.get_layer("second")
    np.testing.assert_array_equal(np.array(conv.kernel), np.array(block.kernel))
    kept = block.batch_normalization
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(np.array(getattr(norm, name)), np.array(getattr(kept, name)))
    assert not np.array_equal(np.array(conv.kernel), np.array(model.get_layer("second").kernel))


def test_stripped_model_can_be_quantized_again():
    model, data = network(), images()
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model, calibration_data=data))
    assert len(plain.trainable_weights) == len(model.trainable_weights)
    again = keras_qat.quantize_model(plain, calibration_data=data)
    first = keras_qat.quantize_model(model, calibration_data=data)
    for mine, expected in zip(arrays(again(data)), arrays(first(data)), strict=True):
        np.testing.assert_array_equal(mine, expected)
    plain.compile("sgd", "sparse_categorical_crossentropy")
    plain.fit(data, labels(), epochs=1, verbose=0)


def test_strip_keeps_frozen_layers_frozen():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="frozen", trainable=False),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(4, 3, name="trained"),
            layers.BatchNormalization(name="frozen_norm", trainable=False),
        ]
    )
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    assert [plain.get_layer(name).trainable for name in names_of(model)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6)])
def test_strip_keeps_trainable_factors(shape):
    x = keras.Input(shape)
    y = layers.LayerNormalization(name="norm")(layers.Activation("tanh")(x))
    model = keras.Model(x, y)
    randomize(model, np.random.default_rng(0))
    data = np.random.default_rng(1).normal(size=(8, *shape)).astype("float32")
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    np.testing.assert_allclose(plain(data), model(data), rtol=1e-4, atol=1e-4)
    assert sorted(tuple(w.shape) for w in plain.trainable_weights) == [(6,), (6,)]
    again = keras_qat.quantize_model(plain, calibration_data=data)
    assert len(again.trainable_weights) == 2


def test_stripped_model_loads_without_this_package(tmp_path):
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(named_network()))
    plain.save(tmp_path / "plain.keras")
    with keras.saving.custom_object_scope({}):
        again = keras.models.load_model(tmp_path / "plain.keras")
    data = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(again(data)), np.asarray(plain(data)))
    assert_plain(again)


def test_strip_of_a_clone():
    model = named_network()
    plain = keras_qat.strip_quantization(keras_qat.clone_model(model))
    data = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(plain(data), model(data), rtol=1e-5, atol=1e-6)


def test_strip_keeps_layers_shared():
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    conv, norm = layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm")
    model = keras.Model([a, b], [norm(conv(a)), norm(conv(b))])
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    assert names_of(plain) == ["a", "b", "conv", "norm"]
    assert len(plain.weights) == len(model.weights)


def test_strip_refuses_a_float_model():
    with pytest.raises(NotQuantizedError, match="no quantization to remove"):
        keras_qat.strip_quantization(network())


@pytest.mark.parametrize(
    "norm",
    [
        layers.LayerNormalization(axis=[-2, -1]),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
        layers.GroupNormalization(2),
    ],
)
def test_strip_of_normalizations(norm):
    x = keras.Input((4, 6))
    model = keras.Model(x, type(norm).from_config(norm.get_config())(x))
    randomize(model, np.random.default_rng(0))
    data = np.random.default_rng(1).normal(size=(8, 4, 6)).astype("float32")
    plain = keras_qat.strip_quantization(keras_qat.quantize_model(model))
    np.testing.assert_allclose(plain(data), model(data), rtol=1e-4, atol=1e-4)
