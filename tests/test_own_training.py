"""A model's own way of training does not get lost without a word."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import OwnTrainingWarning


def train_step(self, *args):
    raise NotImplementedError


def made_of(base, **methods):
    x = keras.Input((4,))
    return type("Mine", (base,), methods)(x, keras.layers.Dense(2)(x))


@pytest.mark.parametrize("make", [keras_qat.quantize_model, keras_qat.clone_model])
@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss", "compute_metrics"])
def test_a_models_own_training_is_named(name, make):
    with pytest.warns(OwnTrainingWarning, match=f"own `{name}` is not.* way of Mine") as caught:
        make(made_of(keras.Model, **{name: train_step}))
    ours = [each for each in caught if each.category is OwnTrainingWarning]
    assert [each.filename for each in ours] == [__file__]


def test_own_training_of_a_base_is_named():
    base = type("Base", (keras.Model,), {"train_step": train_step})
    with pytest.warns(OwnTrainingWarning, match="`train_step`"):
        keras_qat.quantize_model(made_of(base))


def test_other_models_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnTrainingWarning)
        keras_qat.quantize_model(made_of(keras.Model))
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        keras_qat.quantize_model(keras_qat.clone_model(model))


@pytest.mark.filterwarnings("ignore::keras_qat.errors.OwnTrainingWarning")
def test_the_advice_trains_in_the_old_way():
    """The method of the old model, in a model around the quantized one."""

    class Mine(keras.Model):
        def compute_loss(self, x, y, y_pred: Any, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y_pred - 7.0))

    x = keras.Input((4,))
    qat = keras_qat.quantize_model(Mine(x, keras.layers.Dense(2)(x)))

    class Trainer(keras.Model):
        compute_loss = Mine.compute_loss

        def __init__(self):
            super().__init__()
            self.qat = qat

        def call(self, inputs, training=None):
            return self.qat(inputs, training=training)

    trainer, data = Trainer(), np.eye(4, dtype="float32")
    trainer.compile(keras.optimizers.Adam(0.3))
    trainer.fit(data, np.zeros((4, 2)), epochs=80, verbose=0)
    assert np.abs(qat.predict(data, verbose=0) - 7.0).max() < 0.5
