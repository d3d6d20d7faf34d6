"""Layers with channels first. The oracles are Keras and the interpreter."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import read_model
from keras_qat.passes.move_channels_last import move_channels_last
from tests.layers.cases import randomize
from tests.layers.litert_files import exported, operators_of
from tests.models import randomized
from tests.passes.customs import assert_exact, assert_file_exact
from tests.passes.graphs import applied, maximum_difference
from tests.quick import some_quick

FIRST: dict[str, Any] = {"data_format": "channels_first"}
IMAGE = (4, 6, 7)


class Scaled(layers.Layer):
    """A custom layer of operations with channels first, whose weights train."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(2, 2, input_shape[1], 3), name="kernel")
        self.scale = self.add_weight(shape=(3, 1, 1), name="scale")

    def call(self, x):
        return ops.conv(x, self.kernel, data_format="channels_first") * self.scale[None]


def residual(x):
    """Makes a network of which only the input has to be transposed."""
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, **FIRST)(x)
    y = skip = layers.ReLU()(layers.BatchNormalization(axis=1)(y))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", **FIRST)(y)
    y = layers.BatchNormalization(axis=1)(
        layers.Conv2D(8, 3, use_bias=False, padding="same", **FIRST)(y)
    )
    y = layers.MaxPooling2D(**FIRST)(layers.ReLU()(layers.Add()([y, skip])))
    gate = layers.GlobalAveragePooling2D(keepdims=True, **FIRST)(y)
    y = y * layers.Conv2D(8, 1, activation="sigmoid", **FIRST)(gate)
    depthwise = layers.DepthwiseConv2D(3, padding="same", **FIRST)(y)
    y = layers.Concatenate(axis=1)([y, ops.split(depthwise, 2, axis=1)[0]])
    return layers.Dense(5)(layers.GlobalAveragePooling2D(**FIRST)(y))


# Layers on images, and the operators of their files. T is a TRANSPOSE.
LAYERS = {
    "conv": (lambda: layers.Conv2D(3, 3, **FIRST), "T CONV_2D T"),
    "softmax": (lambda: layers.Conv2D(3, 3, activation="softmax", **FIRST), "T CONV_2D T SOFTMAX"),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, **FIRST), "T DEPTHWISE_CONV_2D T"),
    "separable": (
        lambda: layers.SeparableConv2D(3, 2, **FIRST),
        "T DEPTHWISE_CONV_2D CONV_2D T",
    ),
    "transposed": (
        lambda: layers.Conv2DTranspose(3, 2, **FIRST),
        "T SHAPE ADD TRANSPOSE_CONV T",
    ),
    "max": (lambda: layers.MaxPooling2D(**FIRST), "T MAX_POOL_2D T"),
    "average": (lambda: layers.AveragePooling2D(2, **FIRST), "T AVERAGE_POOL_2D T"),
    "adaptive": (lambda: layers.AdaptiveAveragePooling2D(2, **FIRST), "T AVERAGE_POOL_2D T"),
    "global_max": (lambda: layers.GlobalMaxPooling2D(**FIRST), "T MAX_POOL_2D RESHAPE"),
    "flatten": (lambda: layers.Flatten(**FIRST), "T RESHAPE"),
    "padding": (lambda: layers.ZeroPadding2D(1, **FIRST), "T PAD T"),
    "crop": (lambda: layers.CenterCrop(4, 4, **FIRST), "T STRIDED_SLICE T"),
    "resize": (lambda: layers.Resizing(5, 6, **FIRST), "T RESIZE_BILINEAR T"),
    "upsampling": (lambda: layers.UpSampling2D(2, **FIRST), "T RESIZE_NEAREST_NEIGHBOR T"),
    "blocks": (
        lambda: lambda x: ops.depth_to_space(x, 2, data_format="channels_first"),
        "T DEPTH_TO_SPACE T",
    ),
    "custom": (lambda: Scaled(), "T CONV_2D T"),
    "drop_in": (
        lambda: keras_qat.layers.QConv2D(3, 3, batch_norm=True, activation="relu", **FIRST),
        "T CONV_2D T",
    ),
}


def model_of(function, shape=IMAGE):
    x = keras.Input(shape, name="x")
    model = keras.Model(x, function(x))
    randomize(model, np.random.default_rng(0))
    return model


def data_for(model, count=4):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("name", some_quick(LAYERS, 0, 1, 4, 9, 15, 16))
def test_move_channels_last_is_exact(tmp_path, name):
    make, operators = LAYERS[name]
    model = model_of(make())
    quantized = assert_exact(model, data_for(model), tmp_path)
    found = " ".join(operators_of(exported(quantized))).replace("TRANSPOSE ", "T ")
    assert found.removesuffix("RANSPOSE") == operators
    assert quantized.output_shape == model.output_shape


def test_move_channels_last_transposes_a_network_once(tmp_path):
    model = randomized(model_of(residual))
    data = data_for(model, 8)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    assert operators_of(exported(quantized)).count("TRANSPOSE") == 1
    before = [ops.convert_to_numpy(v).copy() for v in quantized.trainable_variables]
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    quantized.fit(data, np.ones((8, 5), "float32"), verbose=0)
    after = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    assert len(after) == len(model.trainable_variables)
    still = [
        v.path
        for v, a, b in zip(quantized.trainable_variables, before, after, strict=True)
        if (a == b).all()
    ]
    assert not still
    quantized.save(tmp_path / "model.keras")
    assert_file_exact(keras.models.load_model(tmp_path / "model.keras"), data, tmp_path)


def test_move_channels_last_of_sequences_is_exact(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4, 9)),
            layers.Conv1D(4, 3, **FIRST),
            layers.BatchNormalization(axis=1),
            layers.ReLU(),
            layers.MaxPooling1D(2, **FIRST),
            layers.GlobalAveragePooling1D(**FIRST),
        ]
    )
    assert_exact(model, data_for(model), tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv3D(3, 2, **FIRST),
        lambda: layers.Conv3DTranspose(3, 2, strides=2, **FIRST),
        lambda: layers.MaxPooling3D(2, **FIRST),
        lambda: layers.AveragePooling3D(2, 1, **FIRST),
    ],
)
def test_move_channels_last_of_volumes_is_exact(tmp_path, make):
    model = model_of(make(), (3, 4, 5, 6))
    assert_exact(model, data_for(model), tmp_path)


def test_move_channels_last_keeps_shared_layers_shared():
    shared = layers.Conv2D(4, 3, padding="same", name="conv", **FIRST)
    norm = layers.BatchNormalization(axis=1, name="norm")
    model = model_of(lambda x: norm(shared(norm(shared(x)))))
    graph = applied(move_channels_last, model)
    assert graph.nodes["conv"].head is graph.nodes["conv_1"].head
    assert graph.nodes["norm"].head is graph.nodes["norm_1"].head
    assert maximum_difference(graph, model, data_for(model)) < 1e-4


def test_move_channels_last_moves_constants_with_all_axes():
    factors = np.random.default_rng(0).normal(size=(1, 4, 6, 1)).astype("float32")
    model = model_of(lambda x: layers.MaxPooling2D(1, **FIRST)(x) * factors + 1.0)
    graph = applied(move_channels_last, model)
    assert maximum_difference(graph, model, data_for(model)) < 1e-5


def test_move_channels_last_transposes_before_other_axes():
    """A dense layer works along the last axis, which is the width."""
    model = model_of(lambda x: layers.Dense(3)(layers.Conv2D(4, 1, **FIRST)(x)))
    graph = applied(move_channels_last, model)
    assert [len(node.shapes[0]) for node in graph.nodes.values()] == [4] * 5
    assert maximum_difference(graph, model, data_for(model)) < 1e-4


def test_move_channels_last_keeps_several_outputs():
    def outputs(x):
        y = layers.Conv2D(3, 1, name="conv", **FIRST)(x)
        return {"a": y, "b": layers.ReLU(name="relu")(y), "c": y + 1.0}

    model = model_of(outputs)
    clone = keras_qat.clone_model(model)
    for name, value in model(data_for(model)).items():
        np.testing.assert_allclose(clone(data_for(model))[name], value, atol=1e-5)


def test_move_channels_last_leaves_models_with_channels_last():
    graph = read_model(model_of(layers.Conv2D(3, 1)))
    assert move_channels_last(graph) is graph


@pytest.mark.parametrize(
    "make", [layers.Conv2D(2, 1, name="nchw", **FIRST), layers.Flatten(**FIRST)]
)
def test_channels_first_are_refused_without_the_rewrite(make):
    rewrites = [name for name in keras_qat.DEFAULT_REWRITES if name != "move_channels_last"]
    with pytest.raises(UnsupportedLayerError, match="channels_last.*'move_channels_last'"):
        keras_qat.quantize_model(model_of(make), rewrites=rewrites)
