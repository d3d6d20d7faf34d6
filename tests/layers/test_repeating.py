"""TimeDistributed becomes calls of the wrapped layer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported, operators_of


def model_of(inner, shape):
    x = keras.Input(shape)
    return keras.Model(x, layers.TimeDistributed(inner, name="steps")(x))


WRAPPED = [
    (lambda: layers.Dense(3, activation="relu"), (4, 5), ["FULLY_CONNECTED"]),
    (
        lambda: layers.Conv2D(2, 3),
        (2, 6, 6, 3),
        ["RESHAPE", "CONV_2D", "RESHAPE"],
    ),
]


@pytest.mark.parametrize(("make", "shape", "operators"), WRAPPED)
def test_time_distributed_keeps_function_weights_and_exactness(make, shape, operators):
    model = model_of(make(), shape)
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(x), model(x), atol=1e-5)
    assert len(clone.trainable_weights) == 2  # one set of weights for all steps
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    assert sorted(operators_of(exported(quantized))) == sorted(operators)
    assert_equals_litert(Prepared(Case("distributed", (), lambda: model_of(make(), shape))))
