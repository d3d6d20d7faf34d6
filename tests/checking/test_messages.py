"""Errors of quantize_model name the right layer, the cause and a fix that works."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_qat
from keras_qat import errors
from tests.checking.refused_models import REFUSED


def refusal_of(model):
    with pytest.raises(errors.UnsupportedLayerError) as caught:
        keras_qat.quantize_model(model)
    return caught.value


BATCH = "computes with the size of the batch"
MASK = "A mask has no counterpart in LiteRT"


@pytest.mark.parametrize(
    ("name", "layer", "cause"),
    [
        ("lstm", "lstm.*", "dropout inside a recurrent cell"),
        ("gru_of_two", "bidirectional.*", "dropout inside a recurrent cell"),
        ("masked_steps", "time_distributed.*", MASK),
    ],
)
def test_refusal_names_the_layer_and_the_cause(name, layer, cause):
    refusal = refusal_of(REFUSED[name]())
    assert refusal.layer is not None and re.fullmatch(layer, refusal.layer)
    assert re.search(cause, refusal.what)
    assert refusal.fix and "AssertionError: ." not in str(refusal)
    assert "with `keras.ops` alone" not in refusal.fix


def paste(fix, model):
    """Runs the code in backticks of a fix."""
    code = next(each for each in re.findall("`(.*?)`", fix) if each.startswith("model."))
    exec(code, {"model": model, "keras": keras})


def test_fix_of_a_lambda_changes_only_that_layer():
    x = keras.Input((4,), name="x")
    y = layers.Lambda(lambda t: tf.math.sinh(t), name="half")(x)
    y = layers.Lambda(lambda t: 3.0 * t, name="three")(layers.Dense(4)(y))
    model = keras.Model(x, y)
    refusal = refusal_of(model)
    assert refusal.layer == "half" and "register" not in str(refusal.fix)
    paste(str(refusal.fix), model)  # a relu as a placeholder for the user's function
    assert model.get_layer("half").function(np.float32(-1.0)) == 0.0
    model.get_layer("half").function = lambda t: 0.5 * t
    assert keras_qat.quantize_model(model)


def test_fix_of_a_keras_layer_does_not_propose_to_register_it():
    assert "register" not in str(refusal_of(REFUSED["lstm"]()).fix)


def test_refusal_of_a_subclassed_model_names_the_batch_size():
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="sub")
            self.dense = layers.Dense(8)

        def call(self, x):
            y = self.dense(x)
            return y / (ops.shape(y)[0] + 1)

    model = Model()
    model(np.ones((1, 4), "float32"))
    refusal = refusal_of(model)
    assert refusal.layer == "sub" and BATCH in refusal.what
