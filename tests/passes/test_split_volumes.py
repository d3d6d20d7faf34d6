"""Convolutions and poolings over volumes. The oracles are Keras and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.split_volumes import split_volumes
from tests.layers.cases import Case, branches, layer, operation, randomize
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, maximum_difference
from tests.quick import some_quick

VIDEO = (5, 6, 7, 4)
Conv3D = layers.Conv3D


class OwnConv3D(layers.Conv3D):
    """A custom convolution."""

    def call(self, inputs):
        return ops.conv(inputs, self.kernel, list(self.strides), self.padding) + self.bias


# Layers for volumes, and the operators of their files besides RESHAPE.
FRAMES = ["STRIDED_SLICE"] * 3 + ["CONCATENATION", "CONV_2D"]
LAYERS = {
    "plain": (layer(Conv3D, 6, 3), FRAMES),
    "same": (layer(Conv3D, 6, 3, padding="same", activation="relu"), ["PAD", *FRAMES]),
    "strides": (layer(Conv3D, 6, 3, strides=2, padding="same"), ["PAD", *FRAMES]),
    "dilation": (layer(Conv3D, 6, (2, 3, 3), dilation_rate=2, use_bias=False), FRAMES[1:]),
    "groups": (layer(Conv3D, 6, 3, groups=2), FRAMES),
    "depthwise": (layer(Conv3D, 4, (3, 1, 2), groups=4, padding="same"), ["PAD", *FRAMES]),
    "patches": (layer(Conv3D, 6, 2, strides=2), ["STRIDED_SLICE", "TRANSPOSE", "CONV_2D"]),
    "patches_of_groups": (
        layer(Conv3D, 6, 2, strides=2, groups=2),
        ["STRIDED_SLICE", "TRANSPOSE", "CONV_2D"],
    ),
    "whole_depth": (layer(Conv3D, 6, (5, 1, 2)), ["TRANSPOSE", "CONV_2D"]),
    "frames": (layer(Conv3D, 6, (1, 3, 3), strides=(2, 1, 1)), ["STRIDED_SLICE", "CONV_2D"]),
    "depth": (layer(Conv3D, 6, (3, 1, 1), strides=(2, 1, 1), padding="same"), ["CONV_2D"]),
    "dilated_depth": (layer(Conv3D, 6, (2, 1, 1), dilation_rate=(3, 1, 1)), ["CONV_2D"]),
    "pixels": (layer(Conv3D, 6, 1), ["CONV_2D"]),
    "softmax": (layer(Conv3D, 6, 1, activation="softmax"), ["CONV_2D", "SOFTMAX"]),
    "own": (layer(OwnConv3D, 6, 3), FRAMES),
    "transposed": (
        layer(layers.Conv3DTranspose, 3, (2, 3, 3), strides=2, padding="same"),
        ["SHAPE", "ADD", "TRANSPOSE_CONV", "TRANSPOSE", "DEPTHWISE_CONV_2D"],
    ),
    "transposed_frames": (
        layer(layers.Conv3DTranspose, 3, (1, 2, 2), strides=(1, 2, 2), use_bias=False),
        ["SHAPE", "ADD", "TRANSPOSE_CONV", "TRANSPOSE"],
    ),
    "max": (layer(layers.MaxPooling3D, 3, 2, padding="same"), ["MAX_POOL_2D"] * 2),
    "max_of_depth": (layer(layers.MaxPooling3D, (2, 1, 1)), ["MAX_POOL_2D"]),
    "average": (layer(layers.AveragePooling3D, 3, 2, padding="same"), ["AVERAGE_POOL_2D"] * 2),
    "average_of_all": (layer(layers.AveragePooling3D, VIDEO[:3]), ["MEAN"]),
    "adaptive_average": (
        layer(layers.AdaptiveAveragePooling3D, (2, 3, 3)),
        ["AVERAGE_POOL_2D"] * 2,
    ),
    "adaptive_average_of_all": (layer(layers.AdaptiveAveragePooling3D, 1), ["MEAN"]),
    "adaptive_max": (layer(layers.AdaptiveMaxPooling3D, (2, 3, 7)), ["MAX_POOL_2D"] * 2),
    "max_in_ops": (operation(lambda x: ops.max_pool(x, 2)), ["MAX_POOL_2D"] * 2),
    "average_in_ops": (operation(lambda x: ops.average_pool(x, 2, 1)), ["AVERAGE_POOL_2D"] * 2),
}


def model_of(*sequence, shape=VIDEO):
    inputs = keras.Input(shape, name="x")
    y = inputs
    for each in sequence:
        y = each(y)
    model = keras.Model(inputs, y)
    randomize(model, np.random.default_rng(0))
    return model


def data_for(model, count=4):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype("float32")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", some_quick(LAYERS, 1, 4, 6, 8, 10, 14, 15, 17, 19))
def test_split_volumes_is_exact(name):
    make, operators = LAYERS[name]
    model = model_of(make(name="v"))
    data = data_for(model)
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-4)
    assert len(clone.trainable_variables) == len(model.trainable_variables)
    prepared = Prepared(Case(name, (), branches(VIDEO, [make])), 1)
    assert assert_equals_litert(prepared)
    assert [each for each in operators_of(prepared.content) if each != "RESHAPE"] == operators


def test_split_volumes_names_the_convolution_after_the_layer():
    model = model_of(Conv3D(6, 3, name="conv", activation="relu"))
    graph = applied(split_volumes, model)
    made, source = graph.nodes["conv"].head, model.get_layer("conv")
    assert type(made) is layers.Conv2D and made.activation is source.activation
    np.testing.assert_array_equal(made.kernel[:, :, 4:8], source.kernel[1])
    assert maximum_difference(graph, model, data_for(model)) < 1e-4


def test_split_volumes_shares_the_convolution_of_a_shared_layer():
    shared = Conv3D(4, 3, padding="same", name="conv")
    model = model_of(shared, shared)
    graph = applied(split_volumes, model)
    assert graph.nodes["conv"].head is graph.nodes["conv_1"].head
    assert maximum_difference(graph, model, data_for(model)) < 1e-3


def test_split_volumes_lets_batch_normalization_and_relu_be_fused():
    model = model_of(
        Conv3D(6, (1, 3, 3), padding="same", name="frames"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        Conv3D(6, (3, 1, 1), padding="same", use_bias=False, name="depth"),
        layers.BatchNormalization(axis=4, name="norm_of_axis"),
        layers.ReLU(name="last"),
    )
    data = data_for(model)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    assert {*operators_of(exported(quantized))} == {"CONV_2D", "RESHAPE"}
    assert quantized.get_layer("frames").batch_normalization.name == "norm"
    assert quantized.get_layer("depth").batch_normalization.name == "norm_of_axis"
    clone = keras_qat.clone_model(model)
    for training in (False, True):
        np.testing.assert_allclose(
            clone(data, training=training), model(data, training=training), atol=1e-4
        )
    np.testing.assert_allclose(
        clone.get_layer("depth").batch_normalization.moving_mean,
        model.get_layer("norm_of_axis").moving_mean,
        atol=1e-5,
    )


def test_split_volumes_leaves_batch_normalization_of_a_shared_layer():
    shared = Conv3D(4, 1, name="conv")
    model = model_of(shared, layers.BatchNormalization(name="norm"), shared)
    data = data_for(model)
    np.testing.assert_allclose(keras_qat.clone_model(model)(data), model(data), atol=1e-3)


def test_split_volumes_trains_saves_and_loads(tmp_path):
    model = model_of(
        Conv3D(4, 2, activation="relu", kernel_regularizer="l2", name="conv"),
        layers.GlobalAveragePooling3D(name="mean"),
        layers.Dense(2, name="head"),
    )
    data = data_for(model, 8)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    before = ops.convert_to_numpy(quantized.get_layer("conv").kernel).copy()
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    quantized.fit(data, np.ones((8, 2), "float32"), verbose=0)
    assert (ops.convert_to_numpy(quantized.get_layer("conv").kernel) != before).any()
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras_qat.export_litert(loaded, tmp_path / "model.tflite")
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0).exact


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (layer(Conv3D, 2, 2, kernel_constraint="max_norm"), VIDEO, "kernel_constraint=MaxNorm"),
    ],
)
def test_split_volumes_refuses(make, shape, message):
    model = keras.Sequential([keras.Input(shape), make(name="volumes")])
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        keras_qat.quantize_model(model)
    assert caught.value.layer == "volumes"


@pytest.mark.parametrize("make", [layer(Conv3D, 2, 1), layer(layers.MaxPooling3D)])
def test_split_volumes_refuses_unknown_sizes(make):
    model = keras.Sequential([keras.Input((None, 4, 4, 3)), make(name="volumes")])
    with pytest.raises(UnsupportedLayerError, match="can only be counted.*'volumes'"):
        applied(split_volumes, model)
