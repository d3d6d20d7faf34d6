"""Ids that are moved or encoded: cases of the contract, Keras's own values, errors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QCompare, QEmbedding, QNumber, QReduceMax
from tests.layers.cases import Case
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.layers.test_embedding import ids
from tests.models import called


def encodings():
    """Encodes ids, and looks up ids that were moved."""
    words = keras.Input((6,), name="ids", dtype="int32")
    scores = keras.Input((5,), name="scores")
    category = layers.CategoryEncoding(11, output_mode="multi_hot")(words)
    best = ops.one_hot(ops.argmax(scores, axis=-1), 5)
    looked_up = layers.Embedding(11, 4)(ops.concatenate([words[:, 4:], words[:, :1]], axis=1))
    outputs = [ops.one_hot(words, 8), layers.Dense(3, name="head")(category), scores * best]
    return keras.Model([words, scores], [*outputs, looked_up])


CASES = [
    Case("encoded_ids", (QCompare, QNumber, QReduceMax, QEmbedding), encodings, data=ids),
]

IDS = np.random.default_rng(0).integers(-2, 12, (16, 6)).astype("int32")
ENCODED = {
    "last axis": lambda x: ops.one_hot(x, 9),
    "first axis": lambda x: ops.one_hot(x, 9, axis=1),
    "booleans": lambda x: ops.one_hot(x, 9, dtype="bool"),
    "of a part": lambda x: ops.one_hot(x[:, 1:3], 9),
    "multi_hot": lambda x: ops.multi_hot(x, 9),
}


@pytest.mark.parametrize("function", ENCODED.values(), ids=ENCODED)
def test_encoded_ids_equal_keras_and_litert(function, tmp_path):
    """Ids that are no class give zeros."""
    x = keras.Input((6,), dtype="int32", name="ids")
    model = keras.Model(x, function(x))
    quantized = keras_qat.quantize_model(model)
    np.testing.assert_array_equal(called(quantized, IDS), called(model, IDS))
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", IDS, verbose=0)
    assert report.exact, str(report)


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("count", [1, 4])
def test_encoded_categories_equal_keras(mode, count):
    x = keras.Input((count,), dtype="int32", name="ids")
    model = keras.Model(x, layers.CategoryEncoding(7, output_mode=mode)(x))
    data = np.random.default_rng(0).integers(0, 7, (16, count)).astype("int32")
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-6)
    assert keras_qat.quantize_model(model, calibration_data=data)(data).shape == model(data).shape


def test_encoded_ids_need_three_operators():
    x = keras.Input((6,), dtype="int32", name="ids")
    quantized = quantized_with(keras.Model(x, ops.one_hot(x, 9)))
    assert operators_of(exported(quantized)) == ["RESHAPE", "EQUAL", "CAST"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.one_hot(x, 9), "ids of type float32"),
        (lambda x: ops.multi_hot(x, 9), "ids of type float32"),
        (lambda x: layers.CategoryEncoding(9, sparse=True)(x), "sparse=True"),
    ],
    ids=["one_hot", "multi_hot", "sparse"],
)
def test_encodings_of_real_values_are_refused(function, message):
    x = keras.Input((6,), name="x")
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(keras.Model(x, function(x)))


def test_ids_of_integers_are_moved_before_they_are_looked_up():
    x = keras.Input((6,), dtype="int32", name="ids")
    moved = ops.flip(ops.pad(x, ((0, 0), (1, 0))), axis=1)
    model = keras.Model(x, layers.Embedding(12, 3)(moved))
    quantized = keras_qat.quantize_model(model, default_ranges_stats=(-1, 1))
    data = np.abs(IDS)
    assert "QuantizeInput" not in {type(layer).__name__ for layer in quantized.layers}
    step = np.float32(1 / 100)
    assert np.max(np.abs(called(quantized, data) - called(model, data))) < step


def test_ids_that_are_padded_with_a_number_are_refused():
    x = keras.Input((6,), dtype="int32", name="ids")
    model = keras.Model(x, layers.Embedding(12, 3)(ops.pad(x, ((0, 0), (1, 0)), constant_values=5)))
    with pytest.raises(UnsupportedLayerError, match="ids that a layer looks up"):
        keras_qat.quantize_model(model)
