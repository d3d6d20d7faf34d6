"""FLOOR_DIV and FLOOR_MOD of plain integers: the case of the contract, numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QIntegerDivision
from tests.layers.cases import Case
from tests.layers.litert_files import exported, operators_of
from tests.layers.test_positions import halves
from tests.models import called


def rows_and_columns():
    """Finds the row and the column of the largest value of an image."""
    x = keras.Input((4, 6))
    place = ops.argmax(ops.reshape(x, (-1, 24)), axis=-1)
    row = ops.where(ops.expand_dims(place // 6, 1) > 1, x[:, 0], 0.0)
    return keras.Model(x, [place // 6, place % 6, row])


CASES = [Case("integer_division", (QIntegerDivision,), rows_and_columns, data=halves)]


@pytest.mark.parametrize("divisor", [1, 3, -4])
@pytest.mark.parametrize("function", [ops.floor_divide, ops.mod])
def test_integer_division_equals_python(function, divisor, tmp_path):
    x = keras.Input((41,), dtype="int32", name="ids")
    quantized = keras_qat.quantize_model(keras.Model(x, function(x, divisor)))
    data = np.arange(-20, 21, dtype="int32")[None]
    divide = divmod(data, divisor)[0 if function is ops.floor_divide else 1]
    found = called(quantized, data)
    assert found.dtype == "int32"
    np.testing.assert_array_equal(found, divide)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0).exact
    assert operators_of(exported(quantized)) == [
        "FLOOR_DIV" if function is ops.floor_divide else "FLOOR_MOD"
    ]


@pytest.mark.parametrize("divisor", [0, 2.5, np.array([1, 2, 3])], ids=str)
def test_integer_division_by_another_number_is_refused(divisor):
    x = keras.Input((3,), dtype="int32", name="ids")
    with pytest.raises(UnsupportedLayerError, match="one integer that is not 0.*floor_divide"):
        keras_qat.quantize_model(keras.Model(x, ops.floor_divide(x, divisor)))
