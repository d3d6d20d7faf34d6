"""A warning names custom training steps that a model loses."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import OwnTrainingWarning
from tests.quick import some_quick


def train_step(self, *args):
    raise NotImplementedError


def made_of(base, **methods):
    x = keras.Input((4,))
    return type("Mine", (base,), methods)(x, keras.layers.Dense(2)(x))


@pytest.mark.parametrize("make", [keras_qat.quantize_model, keras_qat.clone_model])
@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss", "compute_metrics"])
def test_own_training_warning_names_the_method(name, make):
    with pytest.warns(OwnTrainingWarning, match=f"own `{name}`. It trains.* way of Mine") as caught:
        make(made_of(keras.Model, **{name: train_step}))
    ours = [each for each in caught if each.category is OwnTrainingWarning]
    assert [each.filename for each in ours] == [__file__]


def test_own_training_warning_names_a_method_of_a_base():
    base = type("Base", (keras.Model,), {"train_step": train_step})
    with pytest.warns(OwnTrainingWarning, match="`train_step`"):
        keras_qat.quantize_model(made_of(base))


def test_own_training_warning_ignores_other_models():
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnTrainingWarning)
        keras_qat.quantize_model(made_of(keras.Model))
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        keras_qat.quantize_model(keras_qat.clone_model(model))


def in_its_own_way(base):
    """Makes a class with methods that call those of its base, as in Keras's guides."""

    class Mine(base):
        def compute_loss(self, x, y, y_pred: Any, sample_weight=None, training=True):
            super().compute_loss(x, y, y_pred, sample_weight, training)
            return keras.ops.mean(keras.ops.square(y_pred - 7.0))

        def train_step(self, *args):
            self.is_traced = True
            return super().train_step(*args)

    return Mine


def functional():
    x = keras.Input((4,))
    return in_its_own_way(keras.Model)(x, keras.layers.Dense(2)(x))


def sequential():
    return in_its_own_way(keras.Sequential)([keras.Input((4,)), keras.layers.Dense(2)])


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = in_its_own_way(Net)()
    model(np.eye(4, dtype="float32"))
    return model


@pytest.mark.parametrize("make", some_quick([functional, sequential, subclassed], 2))
def test_own_training_warning_has_code_that_trains_as_before(make):
    """Runs the code of the message unchanged."""
    model = make()
    with pytest.warns(OwnTrainingWarning) as caught:
        qat = keras_qat.quantize_model(model)
    _, _, recipe = str(caught[0].message).partition("\n\n")
    names = {"keras": keras, "Mine": type(model), "model": qat}
    exec(recipe, names)
    trainer, data = names["trainer"], np.eye(4, dtype="float32")
    trainer.compile(keras.optimizers.Adam(0.3), "mse")
    trainer.fit(data, np.zeros((4, 2)), epochs=80, verbose=0)
    assert trainer.is_traced
    assert np.abs(qat.predict(data, verbose=0) - 7.0).max() < 0.5
