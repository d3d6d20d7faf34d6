"""Fourier transforms. The oracles are Keras, NumPy and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.layers.litert_files import exported, operators_of
from tests.models import called
from tests.passes.customs import assert_exact, normal
from tests.quick import some_quick

zeros = ops.zeros_like


class Mixing(layers.Layer):
    """The layer of FNet: the real part of a transform of steps and channels."""

    def call(self, x):
        return ops.fft2((x, ops.zeros(ops.shape(x))))[0]


# Functions of a tensor, the shape of a sample, and the products of the file.
TRANSFORMS = {
    "fft2": (lambda x: ops.fft2((x, zeros(x)))[0], (8, 12), 2),
    "fft2_of_a_layer": (lambda x: Mixing()(x), (5, 6), 2),
    "fft2_of_images": (lambda x: ops.fft2((x, zeros(x)))[1], (2, 5, 6), 2),
    "fft2_of_complex": (lambda x: list(ops.fft2((x, ops.abs(x)))), (4, 5), 3),
    "ifft2": (lambda x: ops.ifft2((x, ops.abs(x)))[0], (5, 6), 2),
    "there_and_back": (lambda x: ops.ifft2(ops.fft2((x, ops.abs(x))))[0], (5, 6), 5),
    "fft": (lambda x: ops.concatenate(ops.fft((x, zeros(x))), axis=-1), (3, 12), 2),
    "rfft": (lambda x: ops.rfft(x)[0], (12,), 1),
    "rfft_of_a_part": (lambda x: list(ops.rfft(x, fft_length=10)), (12,), 2),
    "rfft_of_more": (lambda x: list(ops.rfft(x, fft_length=15)), (12,), 2),
    "irfft": (lambda x: ops.irfft((x, ops.abs(x))), (7,), 1),
    "irfft_of_odd_length": (lambda x: ops.irfft((x, ops.abs(x)), fft_length=11), (7,), 1),
    "irfft_of_a_part": (lambda x: ops.irfft((x, ops.abs(x)), fft_length=8), (7,), 1),
}


def model_of(function, shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", some_quick(TRANSFORMS, 0, 1, 3, 6, 8, 11))
def test_write_fourier_transforms_is_exact(tmp_path, name):
    function, shape, products = TRANSFORMS[name]
    model, data = model_of(function, shape), normal(shape)
    if isinstance(model.output, list):
        model = keras.Model(model.input, ops.concatenate(model.outputs, axis=-1))
    quantized = assert_exact(model, data, tmp_path)
    assert operators_of(exported(quantized)).count("FULLY_CONNECTED") == products
    wanted, found = called(model, data), called(quantized, data)
    assert np.mean((found - wanted) ** 2) < 1e-3 * np.mean(wanted**2)  # 30 dB


def test_write_fourier_transforms_equals_numpy():
    x = normal((5, 6), count=3)
    clone = keras_qat.clone_model(model_of(TRANSFORMS["fft2"][0], (5, 6)))
    np.testing.assert_allclose(clone(x), np.fft.fft2(x).real, atol=1e-4)


def test_write_fourier_transforms_trains_the_layers_around(tmp_path):
    model = model_of(lambda x: layers.Dense(2)(Mixing()(layers.Dense(4)(x))), (5, 6))
    data = normal((5, 6), 8)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    assert len(quantized.trainable_variables) == 4
    before = [ops.convert_to_numpy(v).copy() for v in quantized.trainable_variables]
    quantized.compile(keras.optimizers.SGD(1e-3), "mse")
    quantized.fit(data, np.ones((8, 5, 2), "float32"), verbose=0)
    after = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    quantized.save(tmp_path / "model.keras")
    keras_qat.export_litert(
        keras.models.load_model(tmp_path / "model.keras"), tmp_path / "model.tflite"
    )
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0).exact


def test_write_fourier_transforms_refuses_a_transform_of_the_batch():
    model = model_of(Mixing(name="mixing"), (4,))
    with pytest.raises(UnsupportedLayerError, match="whose size has to be known.*'mixing'"):
        keras_qat.quantize_model(model)
