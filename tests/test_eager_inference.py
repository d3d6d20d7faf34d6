"""Inference by calling the model instead of `predict`: equal integers, and no new traces."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.backend import rules
from keras_qat.layers.core import base, integers
from keras_qat.layers.core.integers import OffsetInts, center, inference, real_values
from keras_qat.quantizers import FixedParameters, RangeParameters

pytestmark = [
    pytest.mark.grappler,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="only TensorFlow runs rules as functions"
    ),
]


def network(filters, size):
    """Makes convolutions with a residual addition. Only the sizes differ."""
    inputs = keras.Input((size, size, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(filters, 3)(inputs)))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(4)(x))


def quantized(filters=4, size=8):
    return keras_qat.quantize_model(network(filters, size), default_ranges_stats=(-4, 4))


def images(size=8, batch=2):
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype("float32")


def traced():
    return rules.traced_rule.cache_info().misses


def test_call_equals_predict():
    model = quantized()
    assert np.array_equal(model(images()), model.predict(images(), verbose=0))


def test_call_of_another_batch_size_and_of_another_model_traces_no_rule():
    quantized()(images())
    count = traced()
    quantized()(images(batch=5))
    quantized(filters=6)(images())
    assert traced() == count


def test_call_after_a_change_of_weights_and_ranges_equals_predict():
    model, x = quantized(), images()
    before = np.asarray(model(x))
    model.set_weights([w * 1.25 if w.dtype == "float32" else w for w in model.get_weights()])
    after = np.asarray(model(x))
    assert not np.array_equal(before, after)
    assert np.array_equal(after, model.predict(x, verbose=0))


def test_call_fuses_large_tensors_to_the_same_integers(monkeypatch):
    model, x = quantized(), images()
    expected = np.asarray(model(x))
    rules.traced_rule.cache_clear()
    monkeypatch.setattr(rules, "FUSED_SIZE", 1)
    assert np.array_equal(model(x), expected)
    assert np.array_equal(model.predict(x, verbose=0), expected)
    rules.traced_rule.cache_clear()


def test_call_under_a_gradient_tape_gives_the_same_integers():
    import tensorflow as tf

    model, x = quantized(), tf.constant(images())
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x, training=False)
    assert np.array_equal(outputs, model(x))


def test_call_does_not_warn_of_retracing(caplog):
    for size in range(8, 14):
        quantized(size=size)(images(size=size))
    assert not [record for record in caplog.records if "retracing" in record.message]


def test_call_computes_the_grid_of_each_tensor_once(monkeypatch):
    model, computed, seen = quantized(), RangeParameters._computed, []

    def counted(parameters):
        seen.append(parameters)
        return computed(parameters)

    monkeypatch.setattr(RangeParameters, "_computed", counted)
    model(images())
    neighbours = [
        layer.neighbours for layer in model.layers if isinstance(layer, base.QuantizedLayer)
    ]
    tensors = {p for each in neighbours for p in (*each.inputs, each.output)}
    assert len(seen) == len(set(seen))
    assert set(seen) == {p for p in tensors if isinstance(p, RangeParameters)}


def test_inference_keeps_the_integers_of_a_tensor_as_long_as_the_tensor():
    parameters = FixedParameters(0.5, 3)
    made = OffsetInts(keras.ops.array([1.0, -2.0]), parameters.grid())
    with inference():
        x = real_values(made)
        assert center(x, parameters) is made
        del x
        assert not integers._INTEGERS.get()
        x = real_values(made)
    assert center(x, parameters) is not made
    assert np.array_equal(center(x, parameters).values, made.values)


def test_call_leaves_no_attribute_on_tensors():
    model = quantized()
    taps = keras.Model(model.inputs, [layer.output for layer in model.layers])
    for tensor in taps([images()]):
        assert not [name for name in vars(tensor) if "keras_qat" in name]
