"""Random augmentation: no operator in the file, active at training."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QAugmentation
from tests.layers.cases import Case, branches, layer
from tests.layers.litert_files import exported, operators_of

CASES = [
    Case(
        "augmentation",
        (QAugmentation,),
        branches(
            (8, 8, 3),
            [layer(layers.RandomFlip), layer(layers.Conv2D, 2, 3)],
            [layer(layers.Conv2D, 3, 3), layer(layers.RandomTranslation, 0.2, 0.2)],
            [layer(layers.RandomContrast, 0.5), layer(layers.RandomRotation, 0.1)],
        ),
        steps=None,
    ),
]


def test_augmentation_has_no_operator_in_the_file():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomZoom(0.2),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3),
        ]
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=images)
    assert operators_of(exported(quantized)) == ["CONV_2D"]
    same, augmented = (quantized(images, training=training) for training in (False, True))
    assert float(keras.ops.max(keras.ops.abs(same - augmented))) > 0.1


def test_quantize_model_refuses_random_crop():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomCrop(4, 4, name="crop")])
    with pytest.raises(keras_qat.errors.UnsupportedLayerError, match="crop.*CenterCrop"):
        keras_qat.quantize_model(model)
