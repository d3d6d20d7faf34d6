"""Convolutional LSTMs become calls of the same convolutions for each step. The oracle is Keras."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.layers.litert_files import exported, operators_of
from tests.layers.test_recurrent import assert_trained_exact, model_of
from tests.models import called
from tests.passes.customs import normal
from tests.quick import some_quick

VIDEO = (3, 4, 5, 2)


def encoder_and_decoder(x):
    """Calls a layer on a sequence of one step, with the states of another one."""
    _, h, c = layers.ConvLSTM2D(3, 3, padding="same", return_state=True)(x)
    decoder = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True, return_state=True)
    frame, h, c = decoder(x[:, :1], initial_state=[h, c])
    return decoder(frame[..., :2], initial_state=[h, c])[0]


MODELS = {
    "same": (lambda x: layers.ConvLSTM2D(3, 3, padding="same")(x), VIDEO),
    "hard_gates": (
        lambda x: layers.ConvLSTM2D(3, 2, recurrent_activation="hard_sigmoid", use_bias=False)(x),
        VIDEO,
    ),
    "backwards_with_strides": (
        lambda x: layers.ConvLSTM2D(3, 2, strides=2, go_backwards=True, return_sequences=True)(x),
        VIDEO,
    ),
    "dilated": (lambda x: layers.ConvLSTM2D(3, 2, dilation_rate=2, activation="relu")(x), VIDEO),
    "channels_first": (
        lambda x: layers.ConvLSTM2D(3, 3, padding="same", data_format="channels_first")(x),
        (3, 2, 4, 5),
    ),
    "sequences": (lambda x: layers.ConvLSTM1D(3, 3)(x), (3, 5, 2)),
    "volumes": (lambda x: layers.ConvLSTM3D(2, 2, padding="same")(x), (2, 3, 4, 5, 2)),
    "bidirectional": (
        lambda x: layers.Bidirectional(layers.ConvLSTM2D(2, 3, padding="same"))(x),
        VIDEO,
    ),
    "encoder_and_decoder": (encoder_and_decoder, VIDEO),
    "states": (lambda x: layers.ConvLSTM2D(3, 3, padding="same", return_state=True)(x), VIDEO),
}


@pytest.mark.parametrize("name", some_quick(MODELS, 0, 5))
def test_conv_lstm_keeps_function_and_weights_and_is_exact(name, tmp_path):
    function, shape = MODELS[name]
    assert_trained_exact(model_of(function, shape), normal(shape, 4), tmp_path)


def test_conv_lstm_convolves_the_inputs_of_all_steps_at_once(tmp_path):
    model = model_of(MODELS["same"][0], VIDEO)
    quantized = keras_qat.quantize_model(model, calibration_data=normal(VIDEO, 4))
    assert operators_of(exported(quantized)).count("CONV_2D") == 1 + VIDEO[0]


def test_conv_lstm_masks_steps_as_keras_does():
    x, mask = keras.Input(VIDEO), keras.Input(VIDEO[:1], dtype="bool")
    model = keras.Model([x, mask], layers.ConvLSTM2D(3, 2)(x, mask=mask))
    keep = [[True, False, True], [True, True, False], [False, True, True], [True, True, True]]
    data = [ops.convert_to_tensor(normal(VIDEO, 4)), ops.convert_to_tensor(keep)]
    clone = keras_qat.clone_model(model)
    assert float(ops.max(ops.abs(clone(data) - model(data)))) < 1e-5


def test_conv_lstm_streams_step_by_step():
    data = normal(VIDEO, 4)
    quantized = keras_qat.quantize_model(model_of(MODELS["same"][0], VIDEO), calibration_data=data)
    step = keras_qat.streaming(quantized)
    states = [np.zeros((4, *each.shape[1:]), "float32") for each in step.inputs[1:]]
    for t in range(VIDEO[0]):
        output, *states = called(step, [data[:, t : t + 1], *states])
    np.testing.assert_array_equal(output, called(quantized, data))


@pytest.mark.parametrize("kind", ["dropout", "recurrent_dropout"])
def test_conv_lstm_refuses_a_dropout_of_pixels(kind):
    model = model_of(lambda x: layers.ConvLSTM2D(3, 2, name="recurrent", **{kind: 0.1})(x), VIDEO)
    with pytest.raises(UnsupportedLayerError, match=f"'recurrent'.*{kind}=0.1"):
        keras_qat.quantize_model(model)
