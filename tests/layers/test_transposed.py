"""TRANSPOSE_CONV: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QConv1DTranspose, QConv2DTranspose
from tests.layers.cases import Case, branches, layer, randomize
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import constants_of, exported, operators_of, run_litert
from tests.models import called

Conv1DTranspose, Conv2DTranspose = keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose
BatchNormalization, ReLU = keras.layers.BatchNormalization, keras.layers.ReLU

IMAGE = (5, 4, 4)


def extreme(model, rng):
    """Sets weights of the largest size, with one sign for each output channel."""
    randomize(model, rng)
    for each in model.layers:
        if each.weights:
            signs = rng.choice([-1.0, 1.0], each.kernel.shape[-2])
            each.kernel.assign(np.broadcast_to(signs[:, None], each.kernel.shape))


def all_alike(model, rng, batch):
    """Returns data almost all of which is at its maximum."""
    shape = (batch, *model.inputs[0].shape[1:])
    return [np.where(rng.random(shape) < 0.95, 1.0, rng.random(shape)).astype("float32")]


CASES = [
    Case(
        "conv2d_transpose",
        (QConv2DTranspose,),
        branches(
            IMAGE,
            [layer(Conv2DTranspose, 5, 1)],
            [layer(Conv2DTranspose, 4, 3, strides=2, padding="same", activation="relu")],
            [layer(Conv2DTranspose, 4, 2, strides=2, use_bias=False)],
            [layer(Conv2DTranspose, 4, 3, strides=(1, 2), activation="relu6")],
            [layer(Conv2DTranspose, 4, 4, strides=2, padding="same", use_bias=False)],
            [layer(Conv2DTranspose, 4, (2, 3), strides=3)],
            [layer(Conv2DTranspose, 4, 3, strides=2, padding="same", output_padding=0)],
            [layer(Conv2DTranspose, 4, 3, strides=2, padding="valid", output_padding=1)],
        ),
    ),
    Case(
        "conv2d_transpose_batch_normalization",
        (QConv2DTranspose,),
        branches(
            IMAGE,
            [layer(Conv2DTranspose, 4, 3), BatchNormalization],
            [layer(Conv2DTranspose, 6, 3, strides=2, padding="same"), BatchNormalization, ReLU],
            [
                layer(Conv2DTranspose, 4, 2, strides=2, use_bias=False),
                layer(BatchNormalization, scale=False),
                layer(ReLU, 6.0),
            ],
        ),
        no_gradient=("/bias",),
    ),
    Case(
        "conv2d_transpose_long_sums",
        (QConv2DTranspose,),
        branches((3, 3, 128), [layer(Conv2DTranspose, 4, 3, padding="same")]),
        prepare=extreme,
        data=all_alike,
    ),
    Case(
        "conv1d_transpose",
        (QConv1DTranspose,),
        branches(
            (7, 4),
            [layer(Conv1DTranspose, 4, 3)],
            [layer(Conv1DTranspose, 4, 3, strides=2, padding="same", activation="relu")],
            [layer(Conv1DTranspose, 6, 4, strides=3, use_bias=False, activation="relu6")],
            [layer(Conv1DTranspose, 6, 2, strides=2), BatchNormalization, ReLU],
        ),
        no_gradient=("b3_0/bias",),
    ),
]


def by_hand(**ranges):
    conv = Conv2DTranspose(2, 2, strides=2, name="conv")
    model = keras.Sequential([keras.Input((1, 1, 1), name="input"), conv])
    kernel = np.array([[[1.0, 3.0], [-1.0, 0.5]], [[0.0, 1.5], [0.5, -3.0]]])
    conv.kernel.assign(kernel[..., None])
    conv.bias.assign([1.0, -2.0])
    return quantized_with(model, input=HALVES, conv=HALVES)


def test_conv2d_transpose_by_hand():
    quantized = by_hand()
    y = called(quantized, np.full((1, 1, 1, 1), 4.0, "float32"))
    assert y[..., 0].ravel().tolist() == [5.0, -3.0, 1.0, 3.0]
    assert y[..., 1].ravel().tolist() == [10.0, 0.0, 4.0, -14.0]
    kernel, scale = constants_of(exported(quantized))["conv/kernel"]
    assert kernel.shape == (2, 2, 2, 1)  # (out, height, width, in)
    np.testing.assert_allclose(scale, np.array([1.0, 3.0]) / 127, rtol=1e-6)


@pytest.mark.parametrize("kernels", ["BUILTIN_REF", "AUTO"])
@pytest.mark.parametrize("batch", [1, 3])
def test_conv2d_transpose_file_takes_any_batch(kernels, batch):
    content = exported(by_hand())
    assert operators_of(content) == ["SHAPE", "ADD", "TRANSPOSE_CONV"]
    tensors, (name,) = run_litert(content, [np.full((batch, 1, 1, 1), 4.0, "float32")], kernels)
    q, _ = tensors[name]
    assert q.shape == (batch, 2, 2, 2)
    assert np.all(q == q[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilation_rate": 2}, "no dilation.*'up'"),
    ],
)
@pytest.mark.parametrize(
    ("cls", "shape"), [(Conv1DTranspose, (3, 3)), (Conv2DTranspose, (3, 3, 3))]
)
def test_conv_transpose_refuses_unsupported_arguments(cls, shape, arguments, message):
    up = cls(2, **{"kernel_size": 3, "name": "up", **arguments})
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(keras.Sequential([keras.Input(shape), up]))


def test_conv1d_transpose_refuses_a_size_that_is_not_invertible():
    up = keras.layers.Conv1DTranspose(2, 4, strides=2, padding="same", output_padding=0, name="up")
    model = keras.Sequential([keras.Input((4, 3)), up])
    with pytest.raises(UnsupportedLayerError, match="'up'.*output_padding=.0,.: 4 become 6"):
        keras_qat.clone_model(model)
