"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR: cases, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QResize
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Resizing, UpSampling2D = keras.layers.Resizing, keras.layers.UpSampling2D


def resized(*args, **kwargs):
    return operation(lambda x: ops.image.resize(x, *args, **kwargs))


def resizings(interpolation):
    return branches(
        (5, 7, 3),
        [layer(UpSampling2D, 2, interpolation=interpolation)],
        [layer(UpSampling2D, (3, 1), interpolation=interpolation)],
        [layer(Resizing, 10, 14, interpolation=interpolation)],
        [layer(Resizing, 3, 17, interpolation=interpolation)],
        [layer(Resizing, 1, 2, interpolation=interpolation)],
        [resized((5, 7), interpolation=interpolation)],
        [resized((13, 40), interpolation=interpolation)],
    )


CASES = [
    Case("resize_nearest", (QResize,), resizings("nearest"), steps=0),
    Case("resize_bilinear", (QResize,), resizings("bilinear")),
]


def enlarged(values, width, interpolation):
    model = keras.Sequential(
        [keras.Input((1, len(values), 1), name="input"), Resizing(1, width, interpolation)]
    )
    quantized = quantized_with(model, input=HALVES)
    x = np.float32(values).reshape(1, 1, -1, 1)
    return called(quantized, x).ravel().tolist(), operators_of(exported(quantized))


def test_resize_bilinear_by_hand():
    # 0, 2.5, 7.5 and 10 steps. XNNPACK rounds ties up.
    assert enlarged([0.0, 5.0], 4, "bilinear") == ([0.0, 1.5, 4.0, 5.0], ["RESIZE_BILINEAR"])
    assert enlarged([0.0, -5.0], 4, "bilinear")[0] == [0.0, -1.0, -3.5, -5.0]


def test_resize_nearest_by_hand():
    expected = ([1.0, 1.0, 2.0, 3.0, 3.0], ["RESIZE_NEAREST_NEIGHBOR"])
    assert enlarged([1.0, 2.0, 3.0], 5, "nearest") == expected
    assert enlarged([1.0, 2.0, 3.0], 2, "nearest")[0] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Resizing(8, 8, interpolation="bicubic", name="cubic"), "cubic.*'nearest', 'bilinear'"),
        (Resizing(8, 8, crop_to_aspect_ratio=True, name="crop"), "crop.*crop_to_aspect_ratio"),
        (Resizing(8, 8, pad_to_aspect_ratio=True, name="pad"), "pad.*pad_to_aspect_ratio"),
        (lambda x: ops.image.resize(x, (2, 2), antialias=True), "antialias=True"),
        (Resizing(2000, 3, name="huge"), "huge.*a size of 3 resized to 2000"),
    ],
)
def test_resize_refuses_these_arguments(function, message):
    inputs = keras.Input((3, 4, 2))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model, target="reference")


def test_resize_refuses_a_single_image():
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, ops.image.resize(inputs, (8, 8)))
    with pytest.raises(UnsupportedLayerError, match="a batch of images"):
        keras_qat.quantize_model(model)
