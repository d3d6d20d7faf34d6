"""Recurrent layers become calls of the same layers for each step. The oracle is Keras."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.layers.litert_files import exported, operators_of
from tests.micro import needs_micro
from tests.passes.customs import assert_file_exact, normal

STEPS = 3


class OwnCell(layers.Layer):
    """A cell of a user: a state that leaks, and an output of another size."""

    state_size, output_size = 4, 2

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.output_kernel = self.add_weight(shape=(4, 2), name="output_kernel")
        self.built = True

    def call(self, inputs, states):
        state = 0.5 * states[0] + ops.tanh(ops.matmul(inputs, self.kernel))
        return ops.matmul(state, self.output_kernel), [state]


class OwnGRUCell(layers.GRUCell):
    """A subclass that changes no computation."""


class OwnLSTM(layers.LSTM):
    """A subclass that changes no computation."""


def by_hand(x):
    cell, h = layers.GRUCell(4), layers.Dense(4)(x[:, 0])
    for step in range(STEPS):
        h, _ = cell(x[:, step], [h])
    return h


def twice(x):
    layer = layers.SimpleRNN(4)
    return layer(x) - layer(2.0 * x)


def encoder_and_decoder(x):
    _, h, c = layers.LSTM(4, return_state=True)(x)
    return layers.LSTM(4, return_sequences=True)(x[:, :2], initial_state=[h, c])


RECURRENT = {
    "by_hand": by_hand,
    "bidirectional": lambda x: layers.Bidirectional(layers.LSTM(3))(x),
    "bidirectional_average": lambda x: layers.Bidirectional(layers.GRU(3), "ave")(x),
    "bidirectional_states": lambda x: layers.Bidirectional(
        layers.GRU(3, return_sequences=True, return_state=True), None
    )(x),
    "encoder_and_decoder": encoder_and_decoder,
    "gru": lambda x: layers.GRU(4)(x),
    "gru_reset_before": lambda x: layers.GRU(4, reset_after=False)(x),
    "gru_without_bias": lambda x: layers.GRU(4, use_bias=False)(x),
    "hard_gates": lambda x: layers.LSTM(3, recurrent_activation="hard_sigmoid")(x),
    "lstm": lambda x: layers.LSTM(4)(x),
    "lstm_backwards": lambda x: layers.LSTM(4, go_backwards=True, return_sequences=True)(x),
    "lstm_states": lambda x: layers.LSTM(4, return_sequences=True, return_state=True)(x),
    "own_cell": lambda x: layers.RNN(OwnCell(), return_sequences=True)(x),
    "own_gru_cell": lambda x: layers.RNN(OwnGRUCell(4))(x),
    "own_lstm": lambda x: OwnLSTM(4)(x),
    "relu": lambda x: layers.SimpleRNN(4, activation="relu")(x),
    "stacked_cells": lambda x: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)])(x),
    "stacked_layers": lambda x: layers.GRU(3)(layers.LSTM(4, return_sequences=True)(x)),
    "twice": twice,
    "unrolled": lambda x: layers.LSTM(3, unroll=True)(x),
}
QUICK = ("encoder_and_decoder", "gru", "lstm")


def model_of(function, shape=(STEPS, 5)):
    x = keras.Input(shape)
    return keras.Model(x, function(x))


def weights_of(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def check_clone(model, data):
    clone = keras_qat.clone_model(model)
    for mine, theirs in zip(ops_flat(clone(data)), ops_flat(model(data)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert weights_of(clone) == weights_of(model)


def assert_trained_exact(model, data, folder):
    """The clone has the function and the weights; the trained model equals its file."""
    check_clone(model, data)
    qat = keras_qat.quantize_model(model, calibration_data=data)
    before = [np.array(ops.convert_to_numpy(v)) for v in qat.trainable_variables]
    qat.compile(keras.optimizers.SGD(0.1), ["mse"] * len(qat.outputs), run_eagerly=True)
    targets = [np.ones((len(data), *output.shape[1:]), "float32") for output in qat.outputs]
    qat.train_on_batch(data, targets if len(targets) > 1 else targets[0])
    for variable, old in zip(qat.trainable_variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) != old).any(), variable.path
    assert_file_exact(qat, data, folder)


def ops_flat(outputs):
    return [ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECURRENT]
)
def test_recurrent_layer_keeps_function_and_weights_and_is_exact(name, tmp_path):
    assert_trained_exact(model_of(RECURRENT[name]), normal((STEPS, 5)), tmp_path)


@pytest.mark.parametrize("name", ["bidirectional_states", "own_cell", "stacked_cells"])
def test_clone_of_a_recurrent_layer_keeps_function_and_weights(name):
    check_clone(model_of(RECURRENT[name]), normal((STEPS, 5)))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_clone_of_a_recurrent_layer_in_half_precision_computes_in_float(kind):
    half, full = (model_of(kind(3, dtype=dtype), (2, 5)) for dtype in ("mixed_bfloat16", "float32"))
    full.set_weights(half.get_weights())
    data = normal((2, 5))
    np.testing.assert_allclose(keras_qat.clone_model(half)(data), full(data), atol=1e-5)


@pytest.mark.parametrize(
    "scheme", ["int8_per_tensor", pytest.param("uint8", marks=pytest.mark.slow)]
)
def test_recurrent_layer_is_exact_in_other_schemes(scheme, tmp_path):
    data = normal((2, 5))
    qat = keras_qat.quantize_model(model_of(layers.GRU(4), (2, 5)), scheme, calibration_data=data)
    assert_file_exact(qat, data, tmp_path)


@needs_micro
def test_recurrent_layer_is_exact_on_micro(tmp_path):
    data = normal((2, 5), count=4)
    model = model_of(layers.GRU(4), (2, 5))
    qat = keras_qat.quantize_model(model, target="tflite-micro", calibration_data=data)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(
        qat, tmp_path / "model.tflite", data, kernels="tflite-micro", verbose=0
    )
    assert report.exact, str(report)


def test_weights_are_written_once():
    """A further step adds operators to the file, and no weights."""
    files = [exported(quantized(layers.LSTM(32), steps)) for steps in (2, 3, 4)]
    sizes = [len(file) for file in files]
    assert operators_of(files[0]).count("FULLY_CONNECTED") == 3
    assert sizes[2] - sizes[1] < sizes[1] - sizes[0] + 64 < 32 * 128  # the recurrent kernel alone


def quantized(layer, steps=STEPS):
    data = normal((steps, 5))
    return keras_qat.quantize_model(model_of(layer, (steps, 5)), calibration_data=data)


IDS = np.random.default_rng(0).integers(1, 9, (16, STEPS + 1))
IDS[0, 1:], IDS[1, :2], IDS[2, 1], IDS[5:9, 3:] = 0, 0, 0, 0


def from_state(x):
    h = layers.Dense(4)(layers.GlobalMaxPooling1D()(x))
    return layers.GRU(4, return_sequences=True, return_state=True)(x, initial_state=h)


MASKED = {
    "both_sequences": lambda x: layers.Bidirectional(layers.GRU(3, return_sequences=True))(x),
    "from_state": from_state,
    "lstm": lambda x: layers.LSTM(4)(x),
    "own_cell": lambda x: layers.RNN(OwnCell())(x),
    "stacked": lambda x: layers.LSTM(3)(layers.GRU(4, return_sequences=True)(x)),
}


@pytest.mark.filterwarnings(r"ignore:[\s\S]*does not support masking:UserWarning")
@pytest.mark.parametrize(
    "name", [n if n == "lstm" else pytest.param(n, marks=pytest.mark.slow) for n in MASKED]
)
def test_padding_holds_the_state(name, tmp_path):
    words = keras.Input((STEPS + 1,), dtype="int32")
    x = layers.Embedding(9, 5, mask_zero=True, embeddings_initializer="normal")(words)
    assert_trained_exact(keras.Model(words, MASKED[name](x)), IDS, tmp_path)


def test_input_dropout_drops_channels_of_all_steps():
    qat = quantized(layers.LSTM(4, dropout=0.5))
    assert [layer.rate for layer in qat.layers if hasattr(layer, "rate")] == [0.5]
    assert "QSpatialDropout1D" in [type(layer).__name__ for layer in qat.layers]


REFUSED = {
    "recurrent_dropout=0.3": layers.LSTM(4, recurrent_dropout=0.3),
    "dropout=0.2": layers.RNN([layers.GRUCell(4, dropout=0.2)]),
}


@pytest.mark.parametrize("received", REFUSED)
def test_dropout_inside_a_cell_is_refused(received):
    with pytest.raises(UnsupportedLayerError, match=received):
        keras_qat.quantize_model(model_of(REFUSED[received]))


@pytest.mark.parametrize(("stateful", "received"), [(True, "stateful=True"), (False, "batch of 2")])
def test_state_of_a_fixed_batch_is_refused(stateful, received):
    x = keras.Input(batch_shape=(2, STEPS, 5))
    model = keras.Model(x, layers.GRU(4, stateful=stateful)(x))
    with pytest.raises(UnsupportedLayerError, match=received):
        keras_qat.quantize_model(model)
