"""CONV_2D and DEPTHWISE_CONV_2D: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QConv1D, QConv2D, QDepthwiseConv2D
from tests.layers.cases import Case, branches, layer, randomize
from tests.layers.contract import HALVES, Prepared, assert_equals_litert, quantized_with
from tests.layers.litert_files import constants_of, exported
from tests.models import called
from tests.processes import run_python
from tests.quantizers.modes import on_tensorflow

Conv2D, DepthwiseConv2D = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
BatchNormalization, ReLU = keras.layers.BatchNormalization, keras.layers.ReLU


def extreme(model, rng):
    """Sets weights of the largest size and one sign: accumulators far above 2**24."""
    randomize(model, rng)
    for each in model.layers:
        if each.weights:
            signs = rng.choice([-1.0, 1.0], each.kernel.shape[-1])
            each.kernel.assign(np.broadcast_to(signs, each.kernel.shape))


def all_alike(model, rng, batch):
    """Returns data from near 0 to its maximum. Almost all of it is at the maximum."""
    shape = (batch, *model.inputs[0].shape[1:])
    return [np.where(rng.random(shape) < 0.95, 1.0, rng.random(shape)).astype("float32")]


def odd_channels(model, rng):
    """Sets channels of zeros, of tiny weights with a huge bias, and of huge weights."""
    for each in model.layers:
        if each.weights:
            channels = each.bias.shape[0]
            sizes = np.resize([0.0, 1e-9, 1e-4, 1.0, 300.0, 0.0], channels)
            shape = each.kernel.shape
            last_axes = (channels,) if shape[-1] == channels else shape[-2:]
            each.kernel.assign(rng.normal(size=shape) * sizes.reshape(last_axes))
            each.bias.assign(np.resize([0.0, 40.0, -90.0, 0.1, 3.0, 25.0], channels))


# Most layers have one size, so that each output shape is compiled once for all tests.
IMAGE = (7, 6, 4)

CASES = [
    Case(
        "conv2d",
        (QConv2D,),
        branches(
            IMAGE,
            [layer(Conv2D, 5, 1)],
            [layer(Conv2D, 4, 3, padding="same", activation="relu")],
            [layer(Conv2D, 4, 3, strides=2, activation="relu6")],
            [layer(Conv2D, 4, 3, strides=2, padding="same", use_bias=False)],
            [layer(Conv2D, 4, 5, strides=(1, 2), padding="same")],
            [layer(Conv2D, 4, 1, strides=2, padding="same")],
            [layer(Conv2D, 4, 3, dilation_rate=2)],
            [layer(Conv2D, 4, (2, 3), dilation_rate=(1, 2), padding="same")],
            [layer(Conv2D, 4, 3, groups=2)],
            [layer(Conv2D, 4, 3, groups=4, strides=2, padding="same", activation="relu")],
        ),
    ),
    Case(
        "conv2d_batch_normalization",
        (QConv2D,),
        branches(
            IMAGE,
            [layer(Conv2D, 4, 3), BatchNormalization],
            [layer(Conv2D, 4, 3, use_bias=False), BatchNormalization, ReLU],
            [layer(Conv2D, 4, 1), layer(BatchNormalization, scale=False), layer(ReLU, 6.0)],
            [layer(Conv2D, 4, 1), layer(BatchNormalization, center=False, epsilon=0.1)],
            [layer(Conv2D, 8, 3, groups=4, padding="same"), BatchNormalization],
        ),
        # The mean of the batch cancels the bias.
        no_gradient=("/bias",),
    ),
    Case(
        "conv2d_long_sums",
        (QConv2D,),
        branches((3, 3, 128), [layer(Conv2D, 4, 3, padding="same")], [layer(Conv2D, 4, 1)]),
        prepare=extreme,
        data=all_alike,
    ),
    Case(
        "conv2d_odd_channels",
        (QConv2D,),
        branches(IMAGE, [layer(Conv2D, 6, 3)], [layer(Conv2D, 6, 1, activation="relu")]),
        prepare=odd_channels,
    ),
    Case(
        "depthwise_conv2d",
        (QDepthwiseConv2D,),
        branches(
            IMAGE,
            [layer(DepthwiseConv2D, 3)],
            [layer(DepthwiseConv2D, 1, activation="relu")],
            [layer(DepthwiseConv2D, 3, strides=2, padding="same", activation="relu6")],
            [layer(DepthwiseConv2D, 5, strides=2, padding="same", use_bias=False)],
            [layer(DepthwiseConv2D, 3, depth_multiplier=2, padding="same")],
            [layer(DepthwiseConv2D, 3, dilation_rate=2, padding="same")],
            [layer(DepthwiseConv2D, 2, dilation_rate=2, strides=2, padding="same")],
        ),
    ),
    Case(
        "depthwise_conv2d_batch_normalization",
        (QDepthwiseConv2D,),
        branches(
            IMAGE,
            [layer(DepthwiseConv2D, 3), BatchNormalization, ReLU],
            [layer(DepthwiseConv2D, 3, use_bias=False), layer(BatchNormalization, scale=False)],
            [layer(DepthwiseConv2D, 3, depth_multiplier=2), BatchNormalization, layer(ReLU, 6.0)],
        ),
        no_gradient=("/bias",),
    ),
    Case(
        "depthwise_conv2d_odd_channels",
        (QDepthwiseConv2D,),
        branches((7, 6, 6), [layer(DepthwiseConv2D, 3)]),
        prepare=odd_channels,
    ),
]


def pointwise(channels, kernel, *followers, **arguments):
    """Makes a 1x1 convolution of one pixel with a given kernel."""
    conv = Conv2D(np.shape(kernel)[-1], 1, name="conv", **arguments)
    model = keras.Sequential([keras.Input((1, 1, channels), name="input"), conv, *followers])
    conv.kernel.assign(np.reshape(kernel, conv.kernel.shape))
    return model, conv


def run(model, *pixel):
    return called(model, np.array(pixel, "float32").reshape(1, 1, 1, -1)).ravel().tolist()


def test_conv2d_by_hand():
    model, conv = pointwise(2, [[1.27], [-0.5]])
    conv.bias.assign([0.25])
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    constants = constants_of(exported(quantized))
    kernel, scale = constants["conv/kernel"]
    assert kernel.ravel().tolist() == [127, -50]
    assert scale == np.float32(0.01)
    assert constants["conv/bias"][0].tolist() == [50]  # 0.25 / (0.5 * 0.01)
    # (4 * 127 - 6 * 50 + 50) * 0.5 * 0.01 / 0.5 = 2.58 steps of 0.5
    assert run(quantized, 2.0, 3.0) == [1.5]
    assert run(quantized, -2.0, -3.0) == [-1.0]  # -158 * 0.01 = -1.58 steps


def test_conv2d_with_batch_normalization_by_hand():
    norm = BatchNormalization(epsilon=0.0)
    model, conv = pointwise(1, [[2.0]], norm)
    conv.bias.assign([1.0])
    norm.set_weights([np.array([value], "float32") for value in (3.0, -3.0, 0.0, 4.0)])
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    constants = constants_of(exported(quantized))
    # y = (2x + 1) * 3 / sqrt(4) - 3: a folded kernel of 3, a bias of -3 + 1.5
    assert constants["conv/kernel"][0].ravel().tolist() == [127]
    assert constants["conv/bias"][0].tolist() == [-254 + 127]
    assert run(quantized, 2.0) == [4.5]
    norm.gamma.assign([-3.0])
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    assert constants_of(exported(quantized))["conv/kernel"][0].ravel().tolist() == [-127]
    assert run(quantized, 2.0) == [-10.5]


def test_conv2d_channel_of_zeros_is_its_bias():
    model, conv = pointwise(1, [[0.0, 1.0, 0.0]], activation="relu")
    conv.bias.assign([10.0, 0.0, -3.0])
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    assert run(quantized, 63.5) == [10.0, 63.5, 0.0]


def test_depthwise_conv2d_by_hand():
    conv = DepthwiseConv2D(1, depth_multiplier=2, name="conv")
    model = keras.Sequential([keras.Input((1, 1, 2), name="input"), conv])
    conv.kernel.assign(np.array([[1.0, 2.0], [-1.0, 0.5]], "float32").reshape(1, 1, 2, 2))
    quantized = quantized_with(model, input=HALVES, conv=HALVES)
    kernel, scale = constants_of(exported(quantized))["conv/kernel"]
    assert kernel.ravel().tolist() == [127, 127, -127, 127]
    np.testing.assert_allclose(scale, np.array([1.0, 2.0, 1.0, 0.5]) / 127, rtol=1e-6)
    assert run(quantized, 3.0, 5.0) == [3.0, 6.0, -5.0, 2.5]


# TensorFlow's own gradient of a strided kernel of one tap is safe for multiples of 16 channels.
ONE_TAP = {
    "image": (QConv2D, (7, 6, 16), {"strides": 2}),
    "same": (QConv2D, (7, 6, 16), {"strides": (3, 2), "padding": "same"}),
    "groups": (QConv2D, (8, 5, 32), {"strides": 2, "groups": 2}),
    "sequence": (QConv1D, (9, 16), {"strides": 2, "padding": "causal"}),
}


@on_tensorflow
@pytest.mark.parametrize("case", ONE_TAP)
def test_strided_kernel_of_one_tap_equals_keras(case):
    import tensorflow as tf

    kind, shape, arguments = ONE_TAP[case]
    x = tf.constant(np.random.default_rng(0).normal(size=(2, *shape)), "float32")
    ours, theirs = (each(4, 1, **arguments) for each in (kind, kind.keras_class))

    def values_and_gradients(conv):
        conv.build(x.shape)
        conv.kernel.assign(np.random.default_rng(1).normal(size=conv.kernel.shape))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = conv(x, training=True)
            loss = keras.ops.sum(y * keras.ops.cos(y))
        return [y, *tape.gradient(loss, [x, conv.kernel.value])]

    for a, b in zip(values_and_gradients(ours), values_and_gradients(theirs), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-5)


STRIDED = """
import keras, keras_qat, numpy as np
x = np.random.default_rng(0).random((16, 60, 60, 8), "float32")
image = keras.Input((60, 60, 8))
y = keras.layers.Conv2D(16, 1, strides=2, padding="same", use_bias=False)(image)
model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(y))
qat = keras_qat.quantize_model(model, calibration_data=x)
qat.compile("sgd", "mse")
print(len(qat.fit(x, np.ones((16, 16)), batch_size=8, epochs=5, verbose=0).history["loss"]))
"""


@pytest.mark.slow
def test_strided_kernel_of_one_tap_trains_where_keras_crashes():
    assert run_python(STRIDED) == 5


@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d_long_sum_is_exact_to_one_unit(groups):
    """1151 products of 255 * 127 and one of 255 * 1: float32 cannot represent the last units."""
    conv = Conv2D(groups, 3, groups=groups, name="conv")
    model = keras.Sequential([keras.Input((3, 3, 128 * groups), name="input"), conv])
    kernel = np.ones(conv.kernel.shape)
    kernel[0, 0, 0] = 1 / 127
    total, step = 1151 * 255 * 127 + 255, 0.5 / 127
    conv.kernel.assign(kernel)
    conv.bias.assign([-total * step] * groups)
    ranges = {"input": (0.0, 127.5), "conv": (-128 * step, 127 * step)}
    quantized = quantized_with(model, **ranges)
    bias = constants_of(exported(quantized))["conv/bias"][0].astype("int64")
    x = np.full((3, 3, 3, 128 * groups), 127.5, "float32")
    x[1, 0, 0, ::128] = 127.0  # one unit less in each group
    x[2, 0, 0, ::128] = 121.5
    q = np.rint(called(quantized, x).reshape(3, groups) / step)
    assert np.all(np.abs(total + bias) < 10)  # the rounding error of the bias in float32
    assert (q - (total + bias)).tolist() == [[0] * groups, [-1] * groups, [-12] * groups]


@pytest.mark.parametrize(
    "make",
    [
        layer(Conv2D, 8, 32, strides=32),
        layer(Conv2D, 4, 24, padding="same", strides=3, groups=2),
        layer(DepthwiseConv2D, 25, strides=5),
        layer(keras.layers.Conv2DTranspose, 4, 24),
    ],
    ids=["patches", "groups", "depthwise", "transposed"],
)
def test_convolution_of_a_large_window_is_exact(make, tmp_path):
    """Its sums exceed the integers that float32 holds. Its weights and inputs are all positive."""
    model = keras.Sequential([keras.Input((32, 64, 4)), make()])
    model.layers[0].kernel.assign(np.ones(model.layers[0].kernel.shape))
    x = np.random.default_rng(0).uniform(0, 1, (3, 32, 64, 4)).astype("float32")
    qat = keras_qat.quantize_model(model, calibration_data=x)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(qat, path, batch_size=3)
    assert keras_qat.verify(qat, path, x, verbose=0).exact


def random_chain(rng):
    """Makes a convolution with random arguments that LiteRT and TensorFlow both support."""
    dilated = rng.random() < 0.3
    common = {
        "kernel_size": tuple(int(k) for k in rng.integers(1, 5, 2)),
        "strides": 1 if dilated else int(rng.integers(1, 4)),
        "dilation_rate": int(rng.integers(2, 4)) if dilated else 1,
        "padding": "same" if dilated or rng.random() < 0.5 else "valid",
        "use_bias": bool(rng.random() < 0.7),
    }
    if rng.random() < 0.5:
        make = layer(DepthwiseConv2D, depth_multiplier=int(rng.integers(1, 4)), **common)
    else:
        groups = int(rng.choice([1, 1, 2, 4]))
        make = layer(Conv2D, 4 * int(rng.integers(1, 4)), groups=groups, **common)
    norm = layer(
        BatchNormalization, scale=bool(rng.random() < 0.7), center=bool(rng.random() < 0.7)
    )
    return [
        make,
        *[norm][: rng.integers(0, 2)],
        *[layer(ReLU), layer(ReLU, 6.0)][: rng.integers(0, 2)],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_convolution_with_random_arguments_equals_litert(seed):
    rng = np.random.default_rng(seed)
    shape = (*(int(n) for n in rng.integers(4, 12, 2)), 4)
    case = Case(f"random{seed}", (), branches(shape, *[random_chain(rng) for _ in range(8)]))
    compared = sum(
        assert_equals_litert(Prepared(case, seed, scale, batch=64)) for scale in (1e-3, 1.0, 1e3)
    )
    assert compared >= 100_000
