"""separate_ranges: a prescribed range that meets another range gets a requantized copy."""

import keras
import numpy as np
from keras import layers, ops

import keras_qat
from keras_qat.layers import Requantize
from tests.passes.customs import assert_file_exact


def requantized(model):
    quantized = keras_qat.quantize_model(model)
    return [layer.name for layer in quantized.layers if isinstance(layer, Requantize)], quantized


def activated(x, name, kind="sigmoid"):
    return layers.Activation(kind, name=name)(x)


def test_separate_ranges_makes_one_copy_for_all_consumers(tmp_path):
    x = keras.Input((4,))
    a = activated(x, "a")
    joined = ops.concatenate([a, x], -1)
    model = keras.Model(x, [joined, ops.maximum(a, x), layers.Dense(2)(a), a])
    names, quantized = requantized(model)
    assert names == ["a_requantize"]
    data = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    keras_qat.calibrate(quantized, data, verbose=0)
    assert_file_exact(quantized, data, tmp_path)


def test_separate_ranges_looks_through_layers_that_move_values(tmp_path):
    x = keras.Input((6, 4))
    a = layers.MaxPooling1D()(activated(x, "a"))
    model = keras.Model(x, layers.Concatenate(axis=1)([a, activated(x, "b", "relu")]))
    names, quantized = requantized(model)
    assert names == ["a_requantize"]
    data = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    keras_qat.calibrate(quantized, data, verbose=0)
    assert_file_exact(quantized, data, tmp_path)


def test_separate_ranges_leaves_equal_prescribed_ranges():
    x = keras.Input((4,))
    both = layers.Concatenate()([activated(x, "a"), activated(x, "b", "softmax")])
    names, _ = requantized(keras.Model(x, [both, layers.Dense(2)(both)]))
    assert names == []


def test_separate_ranges_of_a_layer_called_twice_in_sequence():
    """The second softmax takes the output of the first one, and both share the input's range."""
    x = keras.Input((4,))
    softmax = layers.Softmax(name="softmax")
    names, _ = requantized(keras.Model(x, softmax(softmax(x))))
    assert names == ["softmax_requantize"]
