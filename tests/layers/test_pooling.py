"""MAX_POOL_2D, AVERAGE_POOL_2D and MEAN: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import (
    QAveragePooling2D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling2D,
    QMaxPooling2D,
)
from tests.layers.contract import HALVES, Case, branches, layer, quantized_with, together

MaxPooling2D, AveragePooling2D = keras.layers.MaxPooling2D, keras.layers.AveragePooling2D
GlobalAveragePooling2D = keras.layers.GlobalAveragePooling2D
GlobalMaxPooling2D = keras.layers.GlobalMaxPooling2D


def windows(cls):
    return branches(
        (7, 6, 4),
        [layer(cls, 2)],
        [layer(cls, 2, padding="same")],
        [layer(cls, 3, strides=1, padding="same")],
        [layer(cls, 3, strides=2, padding="same")],
        [layer(cls, (3, 2), strides=(1, 2))],
        [layer(cls, (5, 4), strides=3, padding="same")],
    )


CASES = [
    Case("max_pooling2d", (QMaxPooling2D,), windows(MaxPooling2D), steps=0),
    Case("average_pooling2d", (QAveragePooling2D,), windows(AveragePooling2D)),
    Case(
        "global_max_pooling2d",
        (QGlobalMaxPooling2D,),
        together(
            branches((7, 5, 4), [GlobalMaxPooling2D], [layer(GlobalMaxPooling2D, keepdims=True)]),
            branches((1, 1, 6), [GlobalMaxPooling2D], prefix="c"),
        ),
        steps=0,
    ),
    Case(
        "global_average_pooling2d",
        (QGlobalAveragePooling2D,),
        together(
            branches(
                (7, 5, 4),
                [GlobalAveragePooling2D],
                [layer(GlobalAveragePooling2D, keepdims=True)],
                [layer(MaxPooling2D, 4), GlobalAveragePooling2D],
            ),
            branches((1, 1, 6), [GlobalAveragePooling2D], prefix="c"),
        ),
    ),
]


def pooled(cls, image, *args, output=HALVES, **kwargs):
    """Pools one image of one channel, in steps of 0.5."""
    x = np.array(image, "float32")[None, ..., None]
    pool = cls(*args, name="pool", **kwargs)
    model = keras.Sequential([keras.Input(x.shape[1:], name="input"), pool])
    quantized = quantized_with(model, input=HALVES, pool=output)
    return np.squeeze(quantized.predict(x, verbose=0)).tolist()


def test_average_rounds_half_away_from_zero():
    # (1 + 1 + 2 + 2) / 4 = 1.5 steps
    assert pooled(AveragePooling2D, [[0.5, 0.5], [1.0, 1.0]], 2) == 1.0
    assert pooled(AveragePooling2D, [[-0.5, -0.5], [-1.0, -1.0]], 2) == -1.0


def test_average_at_a_border_counts_only_what_is_there():
    image = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 63.5]]
    # 2 / 4, 2 / 6 and 129 / 9 steps; 127 / 6, 127 / 4
    expected = [[0.5, 0.5 * 0, 0.0], [0.0, 7.0, 10.5], [0.0, 10.5, 16.0]]
    assert pooled(AveragePooling2D, image, 3, strides=1, padding="same") == expected
    constant = np.full((3, 3), 7.0)
    assert pooled(AveragePooling2D, constant, 3, strides=1, padding="same") == constant.tolist()


def test_maximum_ignores_the_padding():
    image = np.full((3, 3), -5.0)
    assert pooled(MaxPooling2D, image, 2, padding="same") == [[-5.0, -5.0], [-5.0, -5.0]]


def test_mean_has_a_range_of_its_own():
    # 0.75 is 1.5 steps of 0.5, and 3 steps of 0.25; this kernel rounds ties up
    assert pooled(GlobalAveragePooling2D, [[0.5, 1.0]]) == 1.0
    assert pooled(GlobalAveragePooling2D, [[-0.5, -1.0]]) == -0.5
    assert pooled(GlobalAveragePooling2D, [[0.5, 1.0]], output=(-32.0, 31.75)) == 0.75


@pytest.mark.parametrize(
    "make",
    [
        layer(MaxPooling2D, 2),
        layer(AveragePooling2D, 2),
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
    ],
)
def test_channels_first_is_refused(make):
    pool = make(data_format="channels_first", name="nchw")
    model = keras.Sequential([keras.Input((2, 4, 4)), pool])
    with pytest.raises(UnsupportedLayerError, match="nchw.*channels_last"):
        keras_qat.quantize_model(model)
