"""Batch normalization that is not folded: cases of the contract, hand-computed numbers."""

import keras
import numpy as np

import keras_qat
from keras_qat.layers import QBatchNormalization
from tests.layers.cases import Case, branches, layer, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import constants_of, exported, operators_of
from tests.models import called

BatchNormalization, ReLU = keras.layers.BatchNormalization, keras.layers.ReLU

CASES = [
    Case(
        "batch_normalization",
        (QBatchNormalization,),
        together(
            branches(
                (7, 6, 4),
                [BatchNormalization],
                [layer(BatchNormalization, scale=False), ReLU],
                [layer(BatchNormalization, center=False, epsilon=0.1), layer(ReLU, 6.0)],
            ),
            branches((4,), [BatchNormalization], [BatchNormalization, ReLU], prefix="c"),
            branches((4, 4), [BatchNormalization], prefix="d"),
        ),
    ),
]


def test_batch_normalization_by_hand():
    norm = BatchNormalization(epsilon=0.0, name="norm")
    model = keras.Sequential([keras.Input((1,), name="input"), norm])
    norm.set_weights([np.array([value], "float32") for value in (3.0, -3.0, 0.0, 4.0)])
    quantized = quantized_with(model, input=HALVES, norm=HALVES)
    content = exported(quantized)
    assert operators_of(content) == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]
    constants = constants_of(content)
    assert constants["norm/kernel"][0].ravel().tolist() == [127]
    assert constants["norm/bias"][0].tolist() == [-508]  # -3 / (0.5 * 1.5 / 127)
    x = np.array([[2.0], [4.0], [-1.0]], "float32")  # y = 1.5 x - 3
    assert called(quantized, x).tolist() == [[0.0], [3.0], [-4.5]]


def test_batch_normalization_moves_statistics_by_the_momentum():
    model = keras.Sequential([keras.Input((1,)), BatchNormalization(momentum=0.9, name="norm")])
    x = np.array([[1.0], [3.0]], "float32")
    quantized = keras_qat.quantize_model(model)
    y = quantized(x, training=True).numpy()
    assert abs(y[0, 0] + y[1, 0]) < 0.05  # the batch's statistics: -1 and 1
    norm = quantized.get_layer("norm").batch_normalization
    np.testing.assert_allclose(norm.moving_mean, [0.1 * 2.0], rtol=1e-2)
    np.testing.assert_allclose(norm.moving_variance, [0.9 + 0.1 * 1.0], rtol=1e-2)
