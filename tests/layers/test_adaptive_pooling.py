"""Adaptive pooling: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

from keras_qat.layers import QAdaptiveAveragePooling, QAdaptiveMaxPooling
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

AdaptiveAveragePooling1D = keras.layers.AdaptiveAveragePooling1D
AdaptiveAveragePooling2D = keras.layers.AdaptiveAveragePooling2D
AdaptiveMaxPooling1D = keras.layers.AdaptiveMaxPooling1D
AdaptiveMaxPooling2D = keras.layers.AdaptiveMaxPooling2D


def sizes(steps, image, function):
    """Output sizes that divide the input, that overlap, and that are larger than the input."""
    images = [(3, 2), (7, 6), (3, 4), (4, 3), (4, 4), (9, 2)]
    return together(
        branches((11, 3), *[[layer(steps, size)] for size in (4, 10, 3, 11, 14)]),
        branches((12, 3), [layer(steps, 4)], prefix="c"),
        branches((7, 6, 4), *[[layer(image, size)] for size in images], prefix="d"),
        branches((7, 6, 4), [operation(lambda x: function(x, (5, 4)))], prefix="e"),
    )


CASES = [
    Case(
        "adaptive_average_pooling",
        (QAdaptiveAveragePooling,),
        sizes(AdaptiveAveragePooling1D, AdaptiveAveragePooling2D, keras.ops.adaptive_average_pool),
    ),
    Case(
        "adaptive_max_pooling",
        (QAdaptiveMaxPooling,),
        sizes(AdaptiveMaxPooling1D, AdaptiveMaxPooling2D, keras.ops.adaptive_max_pool),
        steps=0,
    ),
]


def test_adaptive_pooling_by_hand():
    inputs = keras.Input((4, 1), name="input")
    outputs = [AdaptiveAveragePooling1D(3)(inputs), AdaptiveMaxPooling1D(3)(inputs)]
    quantized = quantized_with(keras.Model(inputs, outputs), input=HALVES)
    x = np.array([1.0, 2.5, 4.5, -8.0], "float32").reshape(1, 4, 1)
    averages, maxima = called(quantized, x)
    # 7 / 2, 14 / 2 and -7 / 2 steps of 0.5, halves away from zero
    assert averages.ravel().tolist() == [2.0, 3.5, -2.0]
    assert maxima.ravel().tolist() == [2.5, 4.5, 4.5]


@pytest.mark.parametrize(
    ("size", "operators"),
    [
        ((3, 2), ["AVERAGE_POOL_2D"]),
        ((3, 4), ["AVERAGE_POOL_2D", "GATHER"]),
        ((4, 4), ["AVERAGE_POOL_2D", "GATHER", "GATHER"]),
    ],
)
def test_adaptive_pooling_with_equal_windows_is_one_operator(size, operators):
    model = keras.Sequential([keras.Input((6, 6, 1), name="x"), AdaptiveAveragePooling2D(size)])
    assert operators_of(exported(quantized_with(model, x=HALVES))) == operators
