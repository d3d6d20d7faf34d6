"""Sums of products with wide activations are exact, or an error names the layer."""

from typing import Any

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.arithmetic.accumulate import in_bytes
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QConv2D, QConv2DTranspose, QDense, QDepthwiseConv2D
from keras_qat.layers.core.registry import registered_rules
from keras_qat.layers.kernels.integer_weights import least_scale_for_sums
from keras_qat.quantizers import Grid
from keras_qat.scheme import SCHEMES, Scheme

WIDE = SCHEMES["int16x8"]
UNKNOWN = Scheme("int12x8", activation_bits=12)
ACTIVATION, WEIGHT = 32767, 127


@pytest.fixture
def unknown(monkeypatch):
    """Registers a scheme of 12-bit activations for a test."""
    monkeypatch.setitem(SCHEMES, UNKNOWN.name, UNKNOWN)
    return UNKNOWN


def accumulated(layer, shape):
    """Returns the accumulators of a layer for the largest integers of the scheme."""
    layer.build((None, *shape))
    layer.scheme = WIDE
    x = np.full((1, *shape), ACTIVATION, "float32")
    kernel = np.full(layer.kernel.shape, WEIGHT, "float32")
    parts = [layer.kernel_operator.accumulate(layer, part, kernel) for part in in_bytes(x)]
    high, low = (np.asarray(part, "int64") for part in parts)
    return high * 256 + low


@pytest.mark.parametrize(
    ("layer", "shape", "products"),
    [
        (QDense(3, scheme="int8"), (63,), 63),
        (QConv2D(3, 1, scheme="int8"), (2, 2, 63), 63),
        (QConv2D(3, (1, 2), scheme="int8"), (1, 2, 31), 62),
        (QDepthwiseConv2D((1, 2), scheme="int8"), (1, 2, 3), 2),
        (QConv2DTranspose(3, 1, scheme="int8"), (2, 2, 63), 63),
        (QConv2D(3, 3, scheme="int8"), (3, 3, 3), 27),
        (QDepthwiseConv2D(3, scheme="int8"), (3, 3, 2), 9),
    ],
    ids=["dense", "conv 1x1", "conv 1x2", "depthwise", "transpose", "conv 3x3", "depthwise 3x3"],
)
def test_accumulate_is_exact_for_16_bit_activations(layer, shape, products):
    """The sums are odd and beyond 2**24, so float32 cannot represent them."""
    assert (accumulated(layer, shape) == ACTIVATION * WEIGHT * products).all()


def test_matmul_refuses_16_bit_products():
    layer: Any = keras_qat.layers.QMatmul(scheme="int8")
    layer.scheme = WIDE
    x = np.full((1, 2, 2), ACTIVATION, "float32")
    grid = Grid(np.float32(1), np.int32(0))
    with pytest.raises(UnsupportedLayerError, match="exact accumulator"):
        layer.integer((x, grid), (x, grid), output=grid)


def test_weight_scale_bounds_sums_of_16_bit_activations():
    kernel = np.full((70_000, 1), 0.5, "float32")
    scale = least_scale_for_sums(kernel, (-1,), WIDE)
    assert 32768 * 70_000 * np.round(0.5 / float(scale[0, 0])) < 2**38
    assert least_scale_for_sums(kernel[:60_000], (-1,), WIDE) is None


KINDS: dict[str, Any] = {entry.layer.__name__: entry.layer for entry in registered_rules()}


@pytest.mark.parametrize("kind", [KINDS[name] for name in sorted(KINDS)])
def test_layer_refuses_12_bit_activations(unknown, kind):
    """No layer has kernels for them. Each layer raises the error, whatever its arguments are."""
    with pytest.raises(UnsupportedLayerError, match="12-bit activations") as caught:
        kind.checked_scheme(unknown, "mine")
    assert caught.value.layer == "mine"


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(2, 1, name="mine"),
        keras.layers.Flatten(name="mine"),
        keras.layers.ReLU(name="mine"),
        keras.layers.MaxPooling2D(name="mine"),
        keras.layers.Softmax(name="mine"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_quantize_model_refuses_12_bit_activations(unknown, layer):
    model = keras.Sequential([keras.Input((4, 4, 3)), layer])
    with pytest.raises(UnsupportedLayerError, match="12-bit activations") as caught:
        keras_qat.quantize_model(model, unknown)
    assert caught.value.layer == "mine"


def model_of_a_large_window():
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 40, padding="same", name="big")(x)
    return keras.Model(x, keras.layers.Conv2D(2, 1, name="small")(y))


def test_float_layer_of_a_large_window_equals_keras():
    model = model_of_a_large_window()
    x = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    expected = np.asarray(model(x))
    np.testing.assert_allclose(keras_qat.clone_model(model)(x), expected, rtol=1e-4, atol=1e-4)
    qat = keras_qat.quantize_model(model, overrides={"big": None}, calibration_data=x)
    assert qat.get_layer("big").scheme is None
    assert qat.get_layer("small").scheme == SCHEMES["int8"]
