"""Constant arithmetic before a convolution or dense layer goes into its kernel and bias."""

import keras
import numpy as np
import pytest

import keras_qat
from tests.layers.contract import exported, layer, operators_of, randomize

layers = keras.layers
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3)).astype("float32")


def standardized():
    return layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3e3, 4e3, 5e3])


def model_of(*chain, shape=(9, 9, 3)):
    model = keras.Sequential([keras.Input(shape), *chain])
    for each in model.layers:
        if each.trainable_weights:
            randomize(each, np.random.default_rng(1))
    return model


FOLDED = [
    (standardized, layer(layers.Conv2D, 4, 3)),
    (standardized, layer(layers.Conv2D, 4, 3, use_bias=False, activation="relu")),
    (standardized, layer(layers.DepthwiseConv2D, 3, depth_multiplier=2)),
    (standardized, layer(layers.Dense, 5)),
    (layer(layers.Rescaling, 1 / 255), layer(layers.Conv2D, 4, 3, padding="same")),
    (layer(layers.Rescaling, 1 / 255), layer(layers.DepthwiseConv2D, 3, padding="same")),
]


@pytest.mark.parametrize(("arithmetic", "convolution"), FOLDED)
def test_goes_into_the_layer_behind(arithmetic, convolution):
    model = model_of(arithmetic(), convolution())
    clone = keras_qat.clone_model(model)
    assert len(clone.layers) == 2  # the input and one layer
    exact = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(clone.predict(IMAGES, verbose=0), exact, rtol=1e-4, atol=1e-4)
    assert (
        len(operators_of(exported(keras_qat.quantize_model(model, calibration_data=IMAGES)))) == 1
    )


@pytest.mark.parametrize(
    "convolution",
    [
        layer(layers.Conv2D, 4, 3, padding="same"),  # zeros are padded, not what stands for zero
        layer(layers.Conv2D, 6, 3, groups=3),
    ],
)
def test_stays_where_that_would_not_be_the_same(convolution):
    clone = keras_qat.clone_model(model_of(standardized(), convolution()))
    assert len(clone.layers) == 3


def test_a_frozen_batch_norm_goes_too_and_a_training_one_stays():
    norm = layers.BatchNormalization(name="norm")
    model = model_of(norm, layers.Conv2D(4, 3, name="conv"))
    assert [x.name for x in keras_qat.clone_model(model).layers[1:]] == ["norm", "conv"]
    norm.trainable = False
    clone = keras_qat.clone_model(model)
    assert [x.name for x in clone.layers[1:]] == ["conv"]
    np.testing.assert_allclose(clone(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-2)


def test_all_takers_or_none():
    x = keras.Input((9, 9, 3))
    y = standardized()(x)
    branch = layers.Conv2D(2, 1)(y)
    both = keras.Model(x, [branch, layers.DepthwiseConv2D(3)(y)])
    assert len(keras_qat.clone_model(both).layers) == 3
    mixed = keras.Model(x, [branch, layers.MaxPooling2D()(y)])
    assert len(keras_qat.clone_model(mixed).layers) == 4


def test_a_shared_convolution_keeps_its_weights():
    x, other = keras.Input((9, 9, 3)), keras.Input((9, 9, 3))
    shared = layers.Conv2D(2, 1)
    model = keras.Model([x, other], [shared(standardized()(x)), shared(other)])
    assert len(keras_qat.clone_model(model).trainable_weights) == 2
