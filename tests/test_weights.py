"""integer_weights: its arrays equal those in the file, read by the interpreter."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.errors import MissingRangeError, NotQuantizedError
from tests.models import images, network


@pytest.fixture(scope="module")
def quantized():
    return keras_qat.quantize_model(network(), calibration_data=images())


def test_integer_weights_equal_those_of_the_file(quantized, tmp_path):
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    interpreter = Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    details = {each["name"]: each for each in interpreter.get_tensor_details()}
    weights = keras_qat.integer_weights(quantized)
    assert {"conv/kernel", "conv/bias", "depthwise/kernel", "head/kernel"} <= set(weights)
    for name, mine in weights.items():
        stored, parameters = details[name], details[name]["quantization_parameters"]
        np.testing.assert_array_equal(mine.values, interpreter.get_tensor(stored["index"]))
        assert mine.values.dtype == stored["dtype"]
        np.testing.assert_array_equal(mine.scale, parameters["scales"])
        np.testing.assert_array_equal(mine.zero_point, parameters["zero_points"])
        assert mine.axis == parameters["quantized_dimension"]
    assert weights["conv/kernel"].values.dtype == np.int8
    assert weights["conv/bias"].values.dtype == np.int32


def test_integer_weights_by_hand():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="head")])
    model.layers[0].set_weights([np.array([[1.27], [-0.5]], "float32"), np.array([3.0], "float32")])
    data = np.array([[2.55, 0.0]], "float32")
    weights = keras_qat.integer_weights(keras_qat.quantize_model(model, calibration_data=data))
    np.testing.assert_array_equal(weights["head/kernel"].values, [[127, -50]])
    np.testing.assert_allclose(weights["head/kernel"].scale, [0.01], rtol=1e-6)
    # 3.0 at 0.01 * 0.01
    np.testing.assert_array_equal(weights["head/bias"].values, [30000])


def test_integer_weights_need_ranges():
    with pytest.raises(MissingRangeError):
        keras_qat.integer_weights(keras_qat.quantize_model(network()))


def test_integer_weights_need_a_quantized_model():
    with pytest.raises(NotQuantizedError):
        keras_qat.integer_weights(network())
