"""TOPK_V2: cases of the contract, hand-computed numbers, one operator for both outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QTopPositions, QTopValues
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.layers.test_positions import halves
from tests.models import called


def largest():
    """Takes both outputs, only one of them, and both of a sum of chosen vectors."""
    x, y = keras.Input((4, 9)), keras.Input((6,))
    values, positions = ops.top_k(x, 3)
    outputs = [values, positions, ops.top_k(y, 6)[0], ops.top_k(y, 2)[1]]
    weights, experts = ops.top_k(layers.Dense(5, name="gate")(y), 2)
    chosen = layers.Embedding(5, 3)(experts) * ops.expand_dims(weights, -1)
    return keras.Model(
        [x, y], [*outputs, layers.Dense(3, name="head")(weights), ops.sum(chosen, axis=1)]
    )


CASES = [
    Case(
        "top_k",
        (QTopValues, QTopPositions),
        largest,
        data=halves,
        # Rounded weights may choose other vectors.
        no_gradient=("embeddings", "gate/kernel", "gate/bias", "head/kernel"),
    )
]


def test_top_values_by_hand():
    x = keras.Input((4,), name="x")
    quantized = quantized_with(keras.Model(x, ops.top_k(x, 3)), x=HALVES)
    data = np.array([[1.0, 2.5, -3.0, 2.5], [-1.0, -1.5, -1.0, -1.0]], "float32")
    values, positions = called(quantized, data)
    assert values.tolist() == [[2.5, 2.5, 1.0], [-1.0, -1.0, -1.0]]
    assert positions.dtype == "int32" and positions.tolist() == [[1, 3, 0], [0, 2, 3]]
    assert operators_of(exported(quantized)) == ["TOPK_V2"]


def test_top_values_of_other_counts_are_other_operators():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, [ops.top_k(x, 3)[0], ops.top_k(x, 2)[1]])
    assert operators_of(exported(quantized_with(model, x=HALVES))) == ["TOPK_V2"] * 2


def test_top_positions_equal_litert_on_ties(tmp_path):
    x = keras.Input((40,), name="x")
    model = keras.Model(x, ops.top_k(x, 25))
    data = np.random.default_rng(0).integers(-2, 3, (200, 40)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path)
    report = keras_qat.verify(quantized, path, data, verbose=0)
    assert all(rows.mismatches == 0 for each in report.layers.values() for rows in each.values())
    expected = np.argsort(-data, axis=-1, kind="stable")[:, :25]
    np.testing.assert_array_equal(called(quantized, data)[1], expected)


def test_top_values_without_split_outputs_are_refused():
    x = keras.Input((4,), name="x")
    names = [name for name in keras_qat.DEFAULT_REWRITES if name != "split_outputs"]
    with pytest.raises(UnsupportedLayerError, match="without the rewrite 'split_outputs'"):
        keras_qat.quantize_model(keras.Model(x, ops.top_k(x, 2)), rewrites=names)


def test_top_values_without_an_order_are_refused():
    x = keras.Input((4,), name="x")
    with pytest.raises(UnsupportedLayerError, match="order.*'top_k.*sorted=False"):
        keras_qat.quantize_model(keras.Model(x, ops.top_k(x, 2, sorted=False)))
