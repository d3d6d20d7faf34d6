"""QUANTIZE between tensors: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
from keras import layers, ops

from keras_qat.layers import Requantize
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called


def detection_head():
    """Joins sizes and probabilities, as in object detection. Returns probabilities, too."""
    x = keras.Input((3, 6))
    probability = layers.Activation("sigmoid", name="probability")(x[..., :4])
    joined = layers.Concatenate(name="joined")([x[..., 4:], probability])
    return keras.Model(x, [joined, probability])


def shared():
    """Makes one layer on a softmax and on another tensor."""
    a, b = keras.Input((2, 4)), keras.Input((2, 4))
    dense = layers.Dense(3, name="dense")
    return keras.Model([a, b], [dense(layers.Softmax(name="softmax")(a)), dense(b)])


CASES = [
    Case("requantize_joined", (Requantize,), detection_head),
    Case("requantize_shared", (Requantize,), shared),
]


def softmax_beside_its_input():
    x = keras.Input((2,), name="input")
    y = layers.Softmax(name="softmax")(x)
    return keras.Model(x, layers.Concatenate(name="joined")([y, x]))


def test_requantize_rounds_to_the_range_of_the_neighbours():
    """Steps of 1/256 become steps of 1/2."""
    quantized = quantized_with(
        softmax_beside_its_input(), input=HALVES, softmax_requantize=(0.0, 1.0)
    )
    x = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]], "float32")
    expected = [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 1.0, 0.0], [1.0, 0.0, 9.0, 0.0]]
    assert called(quantized, x).tolist() == expected
    assert operators_of(exported(quantized)) == ["SOFTMAX", "QUANTIZE", "CONCATENATION"]


def test_requantize_in_float_is_the_identity():
    x = np.array([[0.5, -1.0]], "float32")
    assert ops.convert_to_numpy(Requantize()(x)).tolist() == x.tolist()
