"""The LSTMs that become one operator, and those that are unrolled."""

import keras
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QLSTM
from tests.quick import some_quick


class OwnLSTM(layers.LSTM):
    pass


def masked(x):
    return layers.LSTM(4)(layers.Masking()(x))


def with_state(x):
    return layers.LSTM(4)(x, initial_state=[x[:, 0, :4], x[:, 1, :4]])


UNROLLED = {
    "activation": lambda x: layers.LSTM(4, activation="relu")(x),
    "backwards": lambda x: layers.LSTM(4, go_backwards=True)(x),
    "bidirectional": lambda x: layers.Bidirectional(layers.LSTM(4))(x),
    "dropout": lambda x: layers.LSTM(4, dropout=0.5)(x),
    "gru": lambda x: layers.GRU(4)(x),
    "initial_state": with_state,
    "mask": masked,
    "own_layer": lambda x: OwnLSTM(4)(x),
    "recurrent_activation": lambda x: layers.LSTM(4, recurrent_activation="hard_sigmoid")(x),
    "returned_state": lambda x: layers.LSTM(4, return_state=True)(x)[0],
}


def count_of(model):
    return sum(isinstance(each, QLSTM) for each in model.layers)


def model_of(function):
    x = keras.Input((3, 5))
    return keras.Model(x, function(x))


@pytest.mark.parametrize("name", some_quick(UNROLLED, 6))
def test_fuse_lstms_leaves_what_the_operator_lacks(name):
    qat = keras_qat.quantize_model(model_of(UNROLLED[name]), target="tflite-micro")
    assert count_of(qat) == 0


def inside(x):
    return keras.Sequential([keras.Input((3, 5)), layers.LSTM(4)])(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: layers.LSTM(4)(x),
        lambda x: layers.LSTM(4, return_sequences=True, unroll=True, use_bias=False)(x),
        inside,
    ],
)
def test_fuse_lstms_keeps_an_lstm_of_microcontrollers(function):
    assert count_of(keras_qat.quantize_model(model_of(function), target="tflite-micro")) == 1


@pytest.mark.parametrize(
    "options",
    some_quick(
        [
            {"target": "litert"},
            {"target": "ethos-u"},
            {"target": "tflite-micro", "overrides": {"memory": None}},
            {"target": "tflite-micro", "scheme": "uint8"},
            {
                "target": "tflite-micro",
                "rewrites": [name for name in keras_qat.DEFAULT_REWRITES if name != "fuse_lstms"],
            },
        ],
        4,
    ),
)
def test_fuse_lstms_depends_on_options(options):
    model = model_of(lambda x: layers.LSTM(4, name="memory")(x))
    assert count_of(keras_qat.quantize_model(model, **options)) == 0


def test_check_names_the_operator_of_a_fused_lstm():
    report = keras_qat.check(model_of(lambda x: layers.LSTM(4)(x)), target="tflite-micro")
    assert not report.errors, str(report)
