"""The quantization of inputs: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

import keras_qat
from keras_qat.layers import QuantizeInput
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, run_litert
from tests.models import called


def straight_through():
    a, b, c = keras.Input((4, 3)), keras.Input((5,)), keras.Input((2,))
    return keras.Model([a, b, c], [keras.layers.Flatten()(a), keras.layers.Flatten()(b), c])


def odd_ranges(model, rng, batch):
    """Returns data that is all positive, all negative, and always zero."""
    a, b, c = (np.ones((batch, *tensor.shape[1:]), "float32") for tensor in model.inputs)
    return [a * 3 + rng.random(a.shape, "float32"), -b, c * 0]


CASES = [
    Case("inputs", (QuantizeInput,), straight_through, steps=0),
    Case("inputs_of_odd_ranges", (QuantizeInput,), straight_through, steps=0, data=odd_ranges),
]


def identity(size):
    x = keras.Input((size,), name="input")
    return keras.Model(x, x)


def test_quantize_input_rounds_as_the_target_does_and_saturates():
    quantized = quantized_with(identity(6), input=HALVES)
    x = np.array([[0.25, -0.25, 0.2, -0.75, 99.0, -99.0]], "float32")
    assert called(quantized, x).tolist() == [[0.0, 0.0, 0.0, -1.0, 63.5, -64.0]]
    quantized.set_target("reference")
    assert called(quantized, x).tolist() == [[0.5, -0.5, 0.0, -1.0, 63.5, -64.0]]


def test_quantize_input_gives_pixels_the_range_of_their_type():
    pixels = np.array([[3, 4], [5, 7]], "uint8")
    quantized = keras_qat.quantize_model(identity(2), calibration_data=pixels)
    (details,) = [d for _, d in run_litert(exported(quantized), [pixels])[0].values()][:1]
    assert details["quantization"] == (1.0, -128)
    assert called(quantized, pixels).tolist() == pixels.tolist()


def test_quantize_input_keeps_a_calibrated_range_at_training():
    quantized = keras_qat.quantize_model(identity(2))
    keras_qat.calibrate(quantized, np.array([[-1.0, 2.0]], "float32"), verbose=0)
    observer = quantized.layers[1].observer
    for _ in range(70):
        quantized(np.array([[-5.0, 10.0]], "float32"), training=True)
    assert (float(observer.minimum), float(observer.maximum)) == (-1.0, 2.0)
