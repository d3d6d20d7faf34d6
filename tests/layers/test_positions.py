"""ARG_MAX and ARG_MIN: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QArgMax, QArgMin
from keras_qat.litert import Runner
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called


def halves(model, rng, batch):
    """Returns multiples of 0.5, of which many are equal."""
    shapes = [(batch, *tensor.shape[1:]) for tensor in model.inputs]
    return [(rng.integers(-6, 7, shape) / 2).astype("float32") for shape in shapes]


def positions(function):
    """Finds positions on each axis; compares, looks up and returns them."""

    def build():
        x, y = keras.Input((5, 3, 4)), keras.Input((6,))
        last, kept = function(x, axis=-1), function(x, axis=2, keepdims=True)
        vector = layers.Embedding(6, 4)(function(y, axis=1, keepdims=True))
        chosen = ops.where(ops.greater(kept, 1), x, 0.0)
        where = function(ops.cast(ops.greater(x, 0.5), "float32"), axis=1)
        return keras.Model([x, y], [last, kept, where, chosen, layers.Dense(3)(vector)])

    return build


# Without calibration large values are clipped, so that other vectors are looked up.
OPTIONS = {"data": halves, "no_gradient": ("embeddings",)}
CASES = [
    Case("argmax", (QArgMax,), positions(ops.argmax), **OPTIONS),
    Case("argmin", (QArgMin,), positions(ops.argmin), **OPTIONS),
]


@pytest.mark.parametrize(("function", "expected"), [(ops.argmax, [1, 3]), (ops.argmin, [2, 0])])
def test_position_is_that_of_the_first_of_equal_values(function, expected):
    x = keras.Input((4,), name="x")
    quantized = quantized_with(keras.Model(x, function(x, axis=-1)), x=HALVES)
    data = np.array([[1.0, 2.5, -3.0, 2.5], [-1.0, 0.5, -1.0, 4.0]], "float32")
    found = called(quantized, data)
    assert found.dtype == "int32" and found.tolist() == expected


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
@pytest.mark.parametrize("function", [ops.argmax, ops.argmin])
def test_position_equals_litert_on_ties(function, scheme, tmp_path):
    """Each axis has many equal values, the largest and the smallest integers among them."""
    x = keras.Input((3, 70), name="x")
    model = keras.Model(x, [function(x, axis=2), function(x, axis=1)])
    data = np.random.default_rng(0).integers(-2, 3, (200, 3, 70)).astype("float32")
    quantized = keras_qat.quantize_model(model, scheme, calibration_data=data)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path)
    report = keras_qat.verify(quantized, path, data, verbose=0)
    assert all(rows.mismatches == 0 for each in report.layers.values() for rows in each.values())
    for found, exact in zip(called(quantized, data), called(model, data), strict=True):
        np.testing.assert_array_equal(found, exact)


def test_position_is_an_integer_output_for_each_output_type(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, {"class": ops.argmax(layers.Dense(4)(x), axis=-1)})
    quantized = keras_qat.quantize_model(model, calibration_data=np.eye(3, dtype="float32"))
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path, inference_output_type="uint8")
    assert [each.dtype.name for each in Runner(path).outputs] == ["int32"]


def test_position_with_keepdims_is_reshaped():
    x = keras.Input((3,), name="x")
    quantized = quantized_with(keras.Model(x, ops.argmax(x, axis=1, keepdims=True)), x=HALVES)
    assert operators_of(exported(quantized)) == ["ARG_MAX", "RESHAPE"]


@pytest.mark.parametrize("axis", [None, 0, -2])
def test_position_among_all_samples_is_refused(axis):
    x = keras.Input((2,), name="input")
    model = keras.Model(x, ops.argmax(x, axis=axis))
    with pytest.raises(UnsupportedLayerError, match="batch.*'argmax"):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: layers.Dense(2)(ops.argmax(x, axis=-1)),
        lambda x: ops.argmax(x, axis=-1) + 1,
        lambda x: ops.add(ops.argmax(x, axis=-1, keepdims=True), x[:, :, 0]),
        lambda x: ops.relu(ops.argmax(x, axis=-1)),
        lambda x: ops.maximum(x, x > 0),
        lambda x: ops.equal(ops.argmax(x, axis=-1), x[:, :, 0]),
        lambda x: ops.where(x > 0, x > 1, x < -1),
    ],
    ids=["dense", "constant", "tensor", "relu", "bool", "mixed", "selection"],
)
def test_arithmetic_of_plain_numbers_is_refused(function):
    x = keras.Input((3, 4), name="x")
    model = keras.Model(x, function(x))
    with pytest.raises(UnsupportedLayerError, match="plain numbers.*the output of"):
        keras_qat.quantize_model(model)
    [finding] = [each for each in keras_qat.check(model).findings if each.level == "error"]
    assert "plain numbers" in str(finding)
