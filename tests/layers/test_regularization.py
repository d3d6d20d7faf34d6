"""Layers that act at training only: cases of the contract, and their effect at training."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat import layers as ours
from tests.layers.cases import Case, branches, layer
from tests.layers.litert_files import exported, operators_of

layers = keras.layers
CONV = layer(layers.Conv2D, 4, 1)

CASES = [
    Case(
        "regularization",
        (
            ours.QDropout,
            ours.QSpatialDropout2D,
            ours.QAlphaDropout,
            ours.QGaussianDropout,
            ours.QGaussianNoise,
            ours.QActivityRegularization,
        ),
        branches(
            (7, 6, 4),
            [layer(layers.Dropout, 0.3), CONV],
            [layer(layers.SpatialDropout2D, 0.3), CONV],
            [layer(layers.AlphaDropout, 0.3), CONV],
            [layer(layers.GaussianDropout, 0.3), CONV],
            [layer(layers.GaussianNoise, 0.3), CONV],
            [CONV, layer(layers.ActivityRegularization, 0.3), layer(layers.Dropout, 0.2)],
        ),
        steps=None,
    ),
    Case(
        "regularization_rank3",
        (ours.QSpatialDropout1D,),
        branches((4, 3), [layer(layers.SpatialDropout1D, 0.3), layer(layers.Dense, 4)]),
        steps=None,
    ),
    Case(
        "regularization_rank5",
        (ours.QSpatialDropout3D,),
        branches((2, 3, 4, 3), [layer(layers.SpatialDropout3D, 0.3), layer(layers.Conv3D, 4, 1)]),
        steps=None,
    ),
]


ONES = np.ones((4, 50, 3), "float32")


@pytest.mark.parametrize(
    "cls",
    [
        layers.Dropout,
        layers.SpatialDropout1D,
        layers.AlphaDropout,
        layers.GaussianDropout,
        layers.GaussianNoise,
    ],
)
def test_random_layers_draw_the_numbers_of_keras_at_training_only(cls):
    model = keras.Sequential([keras.Input((50, 3)), cls(0.5, seed=3)])
    quantized = keras_qat.quantize_model(model, calibration_data=ONES)
    expected = model(ONES, training=True).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(quantized(ONES, training=True).numpy(), expected, rtol=1e-6)
    assert np.all(quantized(ONES).numpy() == 1.0)
    assert operators_of(exported(quantized)) == []


def test_activity_regularization_adds_its_penalty():
    model = keras.Sequential([keras.Input((50, 3)), layers.ActivityRegularization(l1=0.25)])
    quantized = keras_qat.quantize_model(model, calibration_data=ONES)
    quantized(ONES, training=True)
    assert [float(loss) for loss in quantized.losses] == [0.25 * ONES[0].size]
