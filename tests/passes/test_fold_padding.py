import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.graph import Edge
from keras_qat.passes.fold_padding import fold_padding
from tests.layers.cases import layer, randomize
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, chains, maximum_difference

Conv2D, DepthwiseConv2D = layers.Conv2D, layers.DepthwiseConv2D


def padded(size, pads, convolution, channels=3):
    """Makes a padding and a convolution after it."""
    rank = len(size)
    padding = {1: layers.ZeroPadding1D, 2: layers.ZeroPadding2D}[rank]
    model = keras.Sequential(
        [keras.Input((*size, channels)), padding(pads, name="pad"), convolution(name="conv")]
    )
    randomize(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize(
    ("size", "pads", "convolution"),
    [
        ((8, 8), ((0, 1), (0, 1)), layer(Conv2D, 4, 3, strides=2, activation="relu")),
        ((8, 8), ((0, 1), (0, 1)), layer(DepthwiseConv2D, 3, strides=2, use_bias=False)),
        ((7, 9), 1, layer(Conv2D, 4, 3, strides=2)),
        ((8, 7), ((0, 1), (1, 1)), layer(DepthwiseConv2D, 3, strides=2)),
        ((6, 5), 2, layer(Conv2D, 4, 5, groups=1)),
        ((6, 5), 2, layer(Conv2D, 4, 3, dilation_rate=2)),
        ((6, 5), ((0, 1), (1, 1)), layer(Conv2D, 4, (2, 3))),
        ((6, 5), 0, layer(Conv2D, 4, 1, strides=2)),
        ((8,), (1, 1), layer(layers.Conv1D, 4, 3)),
        ((8,), (1, 2), layer(layers.DepthwiseConv1D, 4)),
    ],
)
def test_fold_padding_folds_the_amount_of_same(size, pads, convolution):
    model = padded(size, pads, convolution)
    graph = applied(fold_padding, model)
    assert chains(graph) == {"conv": ["conv"]}
    head, original = graph.nodes["conv"].head, model.get_layer("conv")
    assert head.padding == "same" and original.padding == "valid"
    assert graph.nodes["conv"].shapes[0] == head.compute_output_shape((None, *size, 3))
    data = np.random.default_rng(1).normal(size=(3, *size, 3)).astype("float32")
    assert maximum_difference(graph, model, data) < 1e-5


@pytest.mark.parametrize(
    ("size", "pads", "convolution"),
    [
        # Keras's ResNet: SAME would put the one zero at the end of the image.
        ((8, 8), 1, layer(Conv2D, 4, 3, strides=2)),
        ((8, 8), ((1, 0), (1, 0)), layer(Conv2D, 4, 3, strides=2)),
        ((8, 8), 2, layer(Conv2D, 4, 3)),
        ((8, 8), 1, layer(Conv2D, 4, 3, padding="same")),
        ((8, 8), 1, layer(layers.Conv2DTranspose, 4, 3)),
        ((8, 8), 1, layer(layers.MaxPooling2D, 3, strides=1)),
        ((8,), (2, 0), layer(layers.Conv1D, 4, 3)),
        ((8,), (1, 1), layer(layers.Conv1D, 4, 3, padding="causal")),
    ],
)
def test_fold_padding_leaves_other_amounts_and_layers(size, pads, convolution):
    graph = applied(fold_padding, padded(size, pads, convolution))
    assert chains(graph) == {"pad": ["pad"], "conv": ["conv"]}


def test_fold_padding_leaves_a_padding_with_other_consumers():
    x = keras.Input((6, 6, 3), name="x")
    pad = layers.ZeroPadding2D(1, name="pad")(x)
    conv = Conv2D(2, 3, name="conv")(pad)
    for outputs in ([conv, pad], [conv, layers.ReLU(name="relu")(pad)]):
        graph = applied(fold_padding, keras.Model(x, outputs))
        assert "pad" in graph.nodes
        assert graph.nodes["conv"].inputs == (Edge("pad"),)


def test_fold_padding_leaves_a_shared_convolution():
    x = keras.Input((6, 6, 3), name="x")
    conv = Conv2D(3, 3, name="conv")
    graph = applied(fold_padding, keras.Model(x, conv(conv(layers.ZeroPadding2D(1)(x)))))
    assert graph.nodes["conv"].head is graph.nodes["conv_1"].head is conv


def test_fold_padding_keeps_a_convolution_frozen():
    model = padded((6, 6), 1, layer(Conv2D, 2, 3, trainable=False))
    assert not applied(fold_padding, model).nodes["conv"].head.trainable


def test_fold_padding_makes_one_operator_of_a_mobilenet_block():
    """The first block of MobileNet."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.ZeroPadding2D(((0, 1), (0, 1))),
            Conv2D(4, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
        ]
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    assert operators_of(exported(quantized)) == ["CONV_2D"]
