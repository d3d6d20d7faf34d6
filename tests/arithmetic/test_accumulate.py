"""Accumulators against NumPy's int64 on the largest values, for which plain float32 is wrong."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.errors import UnsupportedLayerError

LARGEST = 255 * 127


def integers(rng, shape, bound, largest):
    """Returns random integers, or the largest: odd sums above 2**24, which float32 cannot hold."""
    return np.full(shape, bound) if largest else rng.integers(-bound, bound + 1, shape)


def conv_int64(x, kernel):
    """Computes a VALID convolution with stride 1 and groups as in Keras."""
    height, width, depth, filters = kernel.shape
    groups = x.shape[-1] // depth
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    total = np.zeros((x.shape[0], rows, columns, groups, filters // groups), "int64")
    for i in range(height):
        for j in range(width):
            part = x[:, i : i + rows, j : j + columns].reshape(*total.shape[:3], groups, depth)
            weights = kernel[i, j].reshape(depth, groups, filters // groups)
            total += np.einsum("nhwgc,cgf->nhwgf", part, weights)
    return total.reshape(*total.shape[:3], filters)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("window", "channels", "groups", "calls"),
    [
        ((3, 3), 57, 1, 1),  # 513 taps: within the bound
        ((3, 3), 58, 1, 2),  # 522 taps
        ((1, 1), 2048, 1, 4),
        ((3, 3), 512, 1, 9),
        ((1, 1), 1200, 2, 2),
        ((3, 3), 8, 4, 1),
        ((23, 23), 2, 1, 4),  # 529 taps in each channel
        ((23, 23), 4, 2, 4),
    ],
)
def test_accumulate_conv_is_exact(window, channels, groups, calls, largest):
    rng = np.random.default_rng(0)
    x = integers(rng, (2, window[0] + 1, window[1] + 2, channels), 255, largest)
    kernel = integers(rng, (*window, channels // groups, 4), 127, largest)
    seen = []

    def convolve(x, kernel):
        seen.append(kernel.shape)
        return ops.conv(x, kernel, 1, "valid", data_format="channels_last")

    actual = accumulate.conv(x, kernel, convolve=convolve, largest_product=LARGEST)
    assert keras.backend.standardize_dtype(accumulate.whole(actual).dtype) == "int32"
    assert (np.asarray(actual) == conv_int64(x, kernel)).all()
    assert len(seen) == calls


def test_accumulate_conv_obeys_the_largest_product():
    x, kernel = np.full((1, 1, 1, 100), 1000), np.full((1, 1, 100, 1), 1000)
    convolve = ops.conv
    actual = accumulate.conv(x, kernel, convolve=convolve, largest_product=10**6)
    assert np.asarray(actual).item() == 10**8


def test_accumulate_refuses_a_product_beyond_float32():
    x, kernel = np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    with pytest.raises(UnsupportedLayerError, match="products below 16777216"):
        accumulate.conv(x, kernel, convolve=ops.conv, largest_product=2**24)


@pytest.mark.parametrize("size", [22, 23, 33])
def test_accumulate_depthwise_is_exact(size):
    rng, shape = np.random.default_rng(0), (size, size, 3)
    x, kernel = integers(rng, (2, *shape), 255, True), integers(rng, (*shape, 1), 127, True)
    actual = accumulate.depthwise(x, kernel, convolve=ops.depthwise_conv, largest_product=LARGEST)
    expected = (x * kernel[None, :, :, :, 0]).sum((1, 2), keepdims=True)
    assert (np.asarray(actual) == expected).all()


def test_accumulate_conv_transpose_of_a_large_window_is_exact():
    """The taps of one output are every other one of 601, so their sum needs one part or more."""
    for stride, taps in ((1, 601), (2, 301)):
        x, kernel = np.full((1, 601, 1), 255.0), np.full((601, 1, 1), 127.0)
        actual = accumulate.conv_transpose(
            x,
            kernel,
            convolve=lambda x, k, stride=stride: ops.conv_transpose(x, k, stride),
            strides=(stride,),
            largest_product=LARGEST,
        )
        assert np.max(np.asarray(actual)) == taps * LARGEST


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("inputs", [1, 518, 519, 1025, 25_088])
def test_accumulate_matmul_is_exact(inputs, largest):
    rng = np.random.default_rng(inputs)
    x, kernel = integers(rng, (3, inputs), 255, largest), integers(rng, (inputs, 5), 127, largest)
    assert (np.asarray(accumulate.matmul(x, kernel, largest_product=LARGEST)) == x @ kernel).all()


def test_accumulate_matmul_keeps_leading_dimensions():
    rng = np.random.default_rng(0)
    x, kernel = integers(rng, (2, 3, 1000), 255, True), integers(rng, (1000, 4), 127, True)
    assert (np.asarray(accumulate.matmul(x, kernel, largest_product=LARGEST)) == x @ kernel).all()


def test_accumulate_batch_matmul_is_exact():
    """One inner size fits one sum in float32. Two inner sizes need several sums."""
    rng = np.random.default_rng(0)
    for inner in (258, 259, 1033):
        a = rng.integers(-255, 256, (2, 3, 4, inner))
        b = rng.integers(-255, 256, (2, 1, inner, 2))
        actual = accumulate.batch_matmul(
            a.astype("float32"), b.astype("float32"), largest_product=255 * 255
        )
        assert (np.asarray(actual) == a @ b).all()
    full = np.full((1, 1, 33000), 255.0), np.full((1, 33000, 1), 255.0)
    actual = accumulate.batch_matmul(*full, largest_product=255 * 255)
    assert np.asarray(actual).item() == 255 * 255 * 33000
