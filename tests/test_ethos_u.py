"""Whole networks on an Ethos-U55: vela, Arm's compiler, leaves no operator to the CPU."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests.layers.litert_files import exported, operators_of
from tests.models import quantized, randomized
from tests.test_int16x8 import images, network
from tests.vela import compiled_by_vela

needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="needs ethos-u-vela: pip install -e '.[vela]'",
)


def compiled(model, **options):
    data = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    return operators_of(compiled_by_vela(exported(quantized(randomized(model), data), **options)))


def resnet8():
    """Makes the network of MLPerf Tiny's image classification."""

    def convolve(x, filters, strides=1, activation=None, size=3):
        x = layers.Conv2D(filters, size, strides=strides, padding="same")(x)
        if size == 3:
            x = layers.BatchNormalization()(x)
        return layers.Activation(activation)(x) if activation else x

    image = keras.Input((32, 32, 3))
    x = convolve(image, 16, activation="relu")
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = convolve(x, filters, strides, activation="relu")
        y = convolve(y, filters)
        shortcut = convolve(x, filters, strides, size=1) if strides > 1 else x
        x = layers.Activation("relu")(layers.Add()([shortcut, y]))
    x = layers.AveragePooling2D(8)(x)
    x = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
    return keras.Model(image, x)


@needs_vela
def test_resnet8_runs_on_the_npu_alone():
    assert compiled(resnet8()) == ["CUSTOM"]


@needs_vela
@pytest.mark.slow
def test_mobilenet_v2_runs_on_the_npu_alone():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)
    assert compiled(model) == ["CUSTOM"]


def segmentation(batch_size=None):
    """Makes a network that samples down and up with a skip connection, as U-Net does."""
    image = keras.Input((16, 16, 3), batch_size=batch_size)
    skip = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(skip)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x)
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Concatenate()([x, skip])))


@needs_vela
@pytest.mark.parametrize("size, options", [(1, {}), (None, {"batch_size": 1})])
def test_transposed_convolution_of_a_fixed_batch_runs_on_the_npu_alone(size, options):
    assert compiled(segmentation(size), **options) == ["CUSTOM"]


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_16_bits_run_on_the_npu_alone(accelerator):
    model = keras_qat.quantize_model(network(), "int16x8", calibration_data=images())
    assert operators_of(compiled_by_vela(exported(model, batch_size=1), accelerator)) == ["CUSTOM"]


@needs_vela
def test_compiled_shows_an_operator_left_to_the_cpu():
    """Tests the check of this file: the NPU has no operator for a lookup by GATHER."""
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, layers.Activation("softplus")(layers.Conv2D(2, 3)(x)))
    assert set(compiled(model)) > {"CUSTOM"}
