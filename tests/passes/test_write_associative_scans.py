"""Associative scans. The oracles are Keras, NumPy and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.layers.litert_files import exported, operators_of
from tests.passes.customs import assert_exact, normal
from tests.quick import some_quick


def recurrence(before, now):
    """Combines two steps of `h = keep * h + new`."""
    return before[0] * now[0], before[1] * now[0] + now[1]


class MinGRU(layers.Layer):
    """The recurrent layer of "Were RNNs All We Needed?"."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.gate = layers.Dense(units, activation="sigmoid")
        self.candidate = layers.Dense(units)

    def build(self, input_shape):
        self.gate.build(input_shape)
        self.candidate.build(input_shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.gate.units)

    def call(self, x):
        z = self.gate(x)
        return ops.associative_scan(recurrence, (1 - z, z * self.candidate(x)), axis=-2)[1]


class Weighted(layers.Layer):
    """A scan whose function takes a weight."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1],), name="w")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return ops.associative_scan(lambda a, b: a + b * self.w, x, axis=1)


# Functions of a sequence, and its length.
SCANS = {
    "min_gru": (lambda x: MinGRU(4)(x), 6),
    "one_step": (lambda x: MinGRU(4)(x), 1),
    "maximum": (lambda x: ops.associative_scan(ops.maximum, x, axis=1), 8),
    "reversed": (
        lambda x: ops.concatenate(
            ops.associative_scan(recurrence, (ops.sigmoid(x), x), reverse=True, axis=1), axis=-1
        ),
        5,
    ),
    "channels": (lambda x: ops.associative_scan(ops.add, x, axis=-1), 4),
}


def model_of(function, shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x))


@pytest.mark.parametrize("name", some_quick(SCANS, 0, 3))
def test_write_associative_scans_is_exact(tmp_path, name):
    function, length = SCANS[name]
    assert_exact(model_of(function, (length, 3)), normal((length, 3)), tmp_path)


def test_write_associative_scans_calls_the_function_for_powers_of_two():
    model = model_of(SCANS["maximum"][0], (8, 3))
    data = normal((8, 3))
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    assert operators_of(exported(quantized)).count("MAXIMUM") == 3
    clone = keras_qat.clone_model(model)
    np.testing.assert_array_equal(clone(data), np.maximum.accumulate(data, axis=1))


def test_write_associative_scans_trains_the_layers_inside(tmp_path):
    model, data = model_of(MinGRU(4), (6, 3)), normal((6, 3), 8)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    before = [ops.convert_to_numpy(v).copy() for v in quantized.trainable_variables]
    quantized.compile(keras.optimizers.SGD(0.1), "mse")
    quantized.fit(data, np.ones((8, 6, 4), "float32"), verbose=0)
    after = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    assert len(after) == 4
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras_qat.export_litert(loaded, tmp_path / "model.tflite")
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0).exact


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Weighted(name="own"), "depends on other tensors.*'own'"),
        (lambda x: ops.associative_scan(ops.add, x, axis=0), "which is not the batch.*axis=0"),
    ],
)
def test_write_associative_scans_refuses(function, message):
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model_of(function, (4, 3)))
