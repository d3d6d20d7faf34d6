"""Convolutions over sequences: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np

from keras_qat.layers import QConv1D, QDepthwiseConv1D
from tests.layers.cases import Case, branches, layer
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Conv1D, DepthwiseConv1D = keras.layers.Conv1D, keras.layers.DepthwiseConv1D
BatchNormalization, ReLU = keras.layers.BatchNormalization, keras.layers.ReLU

STEPS = (11, 4)

CASES = [
    Case(
        "conv1d",
        (QConv1D,),
        branches(
            STEPS,
            [layer(Conv1D, 5, 1)],
            [layer(Conv1D, 4, 3, padding="same", activation="relu")],
            [layer(Conv1D, 4, 3, strides=2, activation="relu6")],
            [layer(Conv1D, 4, 4, strides=3, padding="same", use_bias=False)],
            [layer(Conv1D, 4, 3, dilation_rate=2)],
            [layer(Conv1D, 4, 3, dilation_rate=3, padding="same", groups=2)],
            [layer(Conv1D, 4, 3, padding="causal", activation="relu")],
            [layer(Conv1D, 4, 4, padding="causal", strides=2)],
            [layer(Conv1D, 4, 3, padding="causal", dilation_rate=4, groups=4)],
            [layer(Conv1D, 4, 1, padding="causal")],
        ),
    ),
    Case(
        "conv1d_batch_normalization",
        (QConv1D,),
        branches(
            STEPS,
            [layer(Conv1D, 4, 3), BatchNormalization],
            [layer(Conv1D, 4, 3, padding="causal", use_bias=False), BatchNormalization, ReLU],
            [layer(Conv1D, 8, 3, groups=2, padding="same"), BatchNormalization, layer(ReLU, 6.0)],
        ),
        no_gradient=("/bias",),
    ),
    Case(
        "depthwise_conv1d",
        (QDepthwiseConv1D,),
        branches(
            STEPS,
            [layer(DepthwiseConv1D, 3)],
            [layer(DepthwiseConv1D, 3, strides=2, padding="same", activation="relu6")],
            [layer(DepthwiseConv1D, 4, depth_multiplier=2, padding="same", use_bias=False)],
            [layer(DepthwiseConv1D, 3, dilation_rate=2, activation="relu")],
        ),
    ),
    Case(
        "depthwise_conv1d_batch_normalization",
        (QDepthwiseConv1D,),
        branches(
            STEPS,
            [layer(DepthwiseConv1D, 3), BatchNormalization, ReLU],
            [layer(DepthwiseConv1D, 3, depth_multiplier=2), BatchNormalization],
        ),
        no_gradient=("/bias",),
    ),
]


def test_conv1d_causal_by_hand():
    conv = Conv1D(1, 2, padding="causal", dilation_rate=2, use_bias=False, name="conv")
    model = keras.Sequential([keras.Input((4, 1), name="input"), conv])
    conv.kernel.assign(np.array([1.0, 0.5], "float32").reshape(2, 1, 1))
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    x = np.array([2.0, 4.0, 6.0, 8.0], "float32").reshape(1, 4, 1)
    # Half of each value, plus the value two steps earlier.
    assert called(quantized, x).ravel().tolist() == [1.0, 2.0, 5.0, 8.0]
    assert operators_of(exported(quantized)) == ["RESHAPE", "PAD", "CONV_2D", "RESHAPE"]
