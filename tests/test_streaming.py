"""Models of one step. The oracle is the file of the whole sequence, in the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidModelError, MissingRangeError, NotQuantizedError
from keras_qat.litert import Runner
from tests.micro import needs_micro
from tests.models import called
from tests.passes.customs import normal

STEPS = 4
DATA = normal((STEPS, 5))


def model_of(*chain):
    return keras.Sequential([keras.Input((STEPS, 5), name="signal"), *chain])


def quantized(*chain, **options):
    return keras_qat.quantize_model(model_of(*chain), calibration_data=DATA, **options)


RECURRENT = {
    "gru": lambda: [layers.GRU(4, name="gru"), layers.Dense(3)],
    "lstm_sequence": lambda: [layers.LSTM(4, return_sequences=True), layers.Dense(3)],
    "simple": lambda: [layers.SimpleRNN(4)],
    "stacked": lambda: [
        layers.Dense(6, activation="relu"),
        layers.LSTM(4, return_sequences=True),
        layers.GRU(3),
    ],
    "stacked_cells": lambda: [layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])],
}
QUICK = ("gru", "lstm_sequence")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECURRENT]
)
def test_file_of_one_step_equals_the_file_of_the_sequence(name, tmp_path):
    """The integers of the states that a call returns are those that the next call takes."""
    qat = quantized(*RECURRENT[name]())
    step = keras_qat.streaming(qat)
    for model, file in ((qat, "whole"), (step, "step")):
        keras_qat.export_litert(model, tmp_path / file)
    whole, one = Runner(tmp_path / "whole"), Runner(tmp_path / "step")
    count = len(step.inputs) - 1
    assert [each.scale.tolist() for each in one.inputs[1:]] == [
        each.scale.tolist() for each in one.outputs[1:]
    ]
    states = [
        np.zeros((16, each.shape[-1] or 0), "int8") + each.zero_point.astype("int8")
        for each in one.inputs[1:]
    ]
    signal = np.random.default_rng(1).integers(-128, 128, (16, STEPS, 5)).astype("int8")
    found = []
    for place in range(STEPS):
        output, *states = one.run([signal[:, place : place + 1], *states])
        assert len(states) == count
        found.append(output)
    [wanted] = whole.run([signal])
    is_sequence = wanted.shape != found[0].shape
    np.testing.assert_array_equal(np.concatenate(found, 1) if is_sequence else found[-1], wanted)
    inputs = [
        DATA[:, :1],
        *(np.zeros((16, *each.shape[1:]), "float32") for each in step.inputs[1:]),
    ]
    assert keras_qat.verify(step, tmp_path / "step", inputs, verbose=0).exact


def test_states_have_the_names_of_their_layers_and_survive_saving(tmp_path):
    step = keras_qat.streaming(quantized(layers.LSTM(3, name="memory")))
    assert [each.name for each in step.inputs] == ["signal", "memory_state", "memory_state_1"]
    assert [tuple(each.shape) for each in step.outputs] == [(None, 3)] * 3
    step.save(tmp_path / "step.keras")
    loaded = keras.models.load_model(tmp_path / "step.keras")
    for model in (step, loaded):
        keras_qat.export_litert(model, tmp_path / f"{model is step}.tflite")
    assert (tmp_path / "True.tflite").read_bytes() == (tmp_path / "False.tflite").read_bytes()


@needs_micro
def test_step_is_exact_on_micro(tmp_path):
    unrolled = [name for name in keras_qat.DEFAULT_REWRITES if name != "fuse_lstms"]
    qat = quantized(layers.LSTM(4), target="tflite-micro", rewrites=unrolled)
    step = keras_qat.streaming(qat)
    assert step.target == "tflite-micro"
    keras_qat.export_litert(step, tmp_path / "step.tflite")
    states = [np.full((16, 4), value, "float32") for value in (0.1, -0.2)]
    report = keras_qat.verify(
        step,
        tmp_path / "step.tflite",
        [DATA[:, :1], *states],
        kernels="tflite-micro",
        verbose=0,
    )
    assert report.exact, str(report)


REFUSED = {
    "other values": lambda: [layers.Conv1D(4, 3, padding="same"), layers.SimpleRNN(4)],
    "other values than the whole": lambda: [layers.SimpleRNN(4, go_backwards=True)],
    "several steps at once": lambda: [
        layers.SimpleRNN(4, return_sequences=True),
        layers.Flatten(),
        layers.Dense(3),
    ],
    "Received: none": lambda: [layers.Dense(3)],
}


@pytest.mark.parametrize("text", REFUSED)
def test_model_that_needs_more_than_one_step_is_refused(text):
    with pytest.raises(InvalidModelError, match=text):
        keras_qat.streaming(quantized(*REFUSED[text]()))


def test_lstm_in_one_operator_is_refused():
    qat = quantized(layers.LSTM(4, name="memory"), target="tflite-micro")
    with pytest.raises(InvalidModelError, match="All steps of this LSTM") as caught:
        keras_qat.streaming(qat)
    assert caught.value.layer == "memory"


def test_recurrent_layers_of_two_lengths_are_refused():
    x = keras.Input((STEPS, 5))
    model = keras.Model(x, [layers.SimpleRNN(4)(x), layers.SimpleRNN(4)(x[:, :3])])
    qat = keras_qat.quantize_model(model, calibration_data=DATA)
    with pytest.raises(InvalidModelError, match="several steps at once"):
        keras_qat.streaming(qat)
    model = keras.Model(x, [layers.SimpleRNN(4)(x), layers.SimpleRNN(4)(x[:, :2])])
    qat = keras_qat.quantize_model(model, calibration_data=DATA)
    with pytest.raises(InvalidModelError, match=r"called \[2, 4\] times"):
        keras_qat.streaming(qat)


def test_padding_holds_the_states_of_a_step(tmp_path):
    words = keras.Input((STEPS,), dtype="int32", name="words")
    x = layers.Embedding(9, 5, mask_zero=True)(words)
    model = keras.Model(words, layers.Dense(3)(layers.LSTM(4)(x)))
    ids = np.random.default_rng(0).integers(1, 9, (16, STEPS))
    ids[0, 2:] = ids[3, :2] = 0
    step = keras_qat.streaming(keras_qat.quantize_model(model, calibration_data=ids))
    keras_qat.export_litert(step, tmp_path / "step.tflite")
    states = [np.full((16, 4), value, "float32") for value in (0.1, -0.2)]
    data = [ids[:, 2:3], *states]
    assert keras_qat.verify(step, tmp_path / "step.tflite", data, verbose=0).exact
    held = called(step, [np.zeros((16, 1)), *called(step, data)[1:]])[1:]
    assert all((a == b).all() for a, b in zip(held, called(step, data)[1:], strict=True))


def test_model_without_ranges_or_quantization_is_refused():
    with pytest.raises(MissingRangeError):
        keras_qat.streaming(keras_qat.quantize_model(model_of(layers.GRU(4))))
    with pytest.raises(NotQuantizedError, match="Only a quantized model"):
        keras_qat.streaming(model_of(layers.GRU(4)))
