"""The memory that a file may request is bounded. Files that Keras saves and loads pass."""

import contextlib
import inspect
import json
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError
from keras_qat.loading.files import budget

L = keras.layers
SEQUENCE, IMAGE, VIDEO = (16, 64), (8, 8, 64), (4, 4, 4, 64)
# A layer of each class that has weights, and the shape of its input.
LAYERS = {
    "AdditiveAttention": (lambda: L.AdditiveAttention(), SEQUENCE),
    "Attention": (lambda: L.Attention(use_scale=True), SEQUENCE),
    "BatchNormalization": (lambda: L.BatchNormalization(), (4096,)),
    "Conv1D": (lambda: L.Conv1D(128, 5), SEQUENCE),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(128, 5), SEQUENCE),
    "Conv2D": (lambda: L.Conv2D(64, 5), IMAGE),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(64, 5), IMAGE),
    "Conv3D": (lambda: L.Conv3D(32, 3), VIDEO),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(32, 3), VIDEO),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(32, 3), (4, 8, 64)),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(16, 3), (4, 8, 8, 64)),
    "ConvLSTM3D": (lambda: L.ConvLSTM3D(32, 3), (2, 4, 4, 4, 16)),
    "Dense": (lambda: L.Dense(256), (256,)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(5, depth_multiplier=64), SEQUENCE),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(5, depth_multiplier=64), IMAGE),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", (None, 256)), (16, 256)),
    "Embedding": (lambda: L.Embedding(2000, 64), (16,)),
    "GroupNormalization": (lambda: L.GroupNormalization(8), (4, 4096)),
    "GroupQueryAttention": (lambda: L.GroupQueryAttention(64, 8, 4), SEQUENCE),
    "GRU": (lambda: L.GRU(64), SEQUENCE),
    "GRUCell": (lambda: L.RNN(L.GRUCell(64)), SEQUENCE),
    "LayerNormalization": (lambda: L.LayerNormalization(), (4096,)),
    "LSTM": (lambda: L.LSTM(64), SEQUENCE),
    "LSTMCell": (lambda: L.RNN(L.LSTMCell(64)), SEQUENCE),
    "MultiHeadAttention": (lambda: L.MultiHeadAttention(8, 64), SEQUENCE),
    "Normalization": (lambda: L.Normalization(), (4096,)),
    "PReLU": (lambda: L.PReLU(), (16, 16, 64)),
    "ReversibleEmbedding": (lambda: L.ReversibleEmbedding(2000, 64), (16,)),
    "RMSNormalization": (lambda: L.RMSNormalization(), (4096,)),
    "SeparableConv1D": (lambda: L.SeparableConv1D(128, 5), SEQUENCE),
    "SeparableConv2D": (lambda: L.SeparableConv2D(128, 5), IMAGE),
    "SimpleRNN": (lambda: L.SimpleRNN(128), SEQUENCE),
    "SimpleRNNCell": (lambda: L.RNN(L.SimpleRNNCell(128)), SEQUENCE),
    "SpectralNormalization": (lambda: L.SpectralNormalization(L.Dense(256)), (256,)),
    "STFTSpectrogram": (lambda: L.STFTSpectrogram(frame_length=256), (2048, 1)),
    # Wrappers of layers with weights.
    "Bidirectional LSTM": (lambda: L.Bidirectional(L.LSTM(64)), SEQUENCE),
    "Bidirectional GRU": (lambda: L.Bidirectional(L.GRU(64), merge_mode="sum"), SEQUENCE),
    "Bidirectional of two": (
        lambda: L.Bidirectional(L.LSTM(64), backward_layer=L.LSTM(64, go_backwards=True)),
        SEQUENCE,
    ),
    "Bidirectional RNN": (
        lambda: L.Bidirectional(L.RNN([L.LSTMCell(64), L.GRUCell(64)])),
        SEQUENCE,
    ),
    "Bidirectional ConvLSTM1D": (lambda: L.Bidirectional(L.ConvLSTM1D(32, 3)), (4, 8, 64)),
    "RNN of cells": (lambda: L.RNN([L.LSTMCell(64), L.GRUCell(64)]), SEQUENCE),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(512)), (4, 256)),
    "TimeDistributed Bidirectional": (
        lambda: L.TimeDistributed(L.Bidirectional(L.LSTM(64))),
        (4, *SEQUENCE),
    ),
    "stateful": (lambda: L.Bidirectional(L.LSTM(64, stateful=True)), SEQUENCE),
    "int8": (lambda: quantized(L.Dense(256)), (256,)),
    "float16": (lambda: L.Dense(256, dtype="mixed_float16"), (256,)),
}
# Layers without arguments, and layers that run code of other libraries.
ABSTRACT = {"FlaxLayer", "JaxLayer", "Layer", "TFSMLayer", "TorchModuleWrapper"}
# Their inner layers are in the entries above.
AROUND = {"Bidirectional", "RNN", "StackedRNNCells", "TimeDistributed"}


def quantized(layer):
    layer.build((None, 256))
    layer.quantize("int8")
    return layer


def model_of(name):
    make, shape = LAYERS[name]
    x = keras.Input(batch_shape=(2 if name == "stateful" else None, *shape))
    layer = make()
    is_attention = name in ("MultiHeadAttention", "GroupQueryAttention")
    attends = name in ("Attention", "AdditiveAttention")
    return keras.Model(x, layer([x, x]) if attends else layer(x, x) if is_attention else layer(x))


def test_budget_cases_have_every_layer_of_keras_with_weights():
    classes = {getattr(L, name) for name in dir(L) if isinstance(getattr(L, name), type)}
    weighted = {
        cls.__name__
        for cls in classes - {L.Layer}
        if issubclass(cls, L.Layer) and any("add_weight(" in inspect.getsource(b) for b in own(cls))
    }
    covered = {cls.__name__ for cls in classes if cls.__name__ in LAYERS}
    assert weighted - covered - ABSTRACT - AROUND == set()


def own(cls):
    """Returns the class and its bases, without the base of all layers."""
    return [base for base in cls.__mro__ if base is not L.Layer and issubclass(base, L.Layer)]


@pytest.fixture
def no_allowance(monkeypatch):
    """Removes the allowance of the budget: large layers need it in proportion to small ones."""
    monkeypatch.setattr(budget, "_UNSAVED", 64)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", LAYERS)
def test_load_model_loads_keras_files_that_keras_loads(name, tmp_path, no_allowance):
    model = model_of(name)
    model.save(tmp_path / "model.keras")
    loaded = keras_qat.load_model(tmp_path / "model.keras")
    for variable, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(variable, other)
    model.save_weights(tmp_path / "model.weights.h5")
    report = keras_qat.load_weights(loaded, tmp_path / "model.weights.h5")
    assert len(report.loaded) == len(loaded.weights)


# Keras 3 does not read its own file: it takes "dot" for the function of that name.
@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"Attention"}))
def test_load_model_loads_h5_that_keras_loads(name, tmp_path, no_allowance):
    model = model_of(name)
    model.save(tmp_path / "model.h5")
    loaded = keras_qat.load_model(tmp_path / "model.h5")
    for variable, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_load_model_of_a_wide_bidirectional_layer(tmp_path):
    """A layer of 128 units. Keras makes their weights three times and saves them twice."""
    x = keras.Input((16, 8))
    keras.Model(x, L.Bidirectional(L.LSTM(128))(x)).save(tmp_path / "model.keras")
    assert keras_qat.load_model(tmp_path / "model.keras").count_params() == 2 * 512 * 137


def too_large():
    """Returns layers with weights beyond any memory, by the object that hides them."""
    dense = L.Dense(10, name="wide")
    rnn = L.Bidirectional(L.LSTM(10, name="wide"))
    stateful = [L.LSTM(10, stateful=True, return_sequences=True), L.LSTM(10, name="wide")]
    inner = keras.Sequential([keras.Input((8,)), dense])
    return {
        "layer": [keras.Input((8,)), dense],
        "model": [keras.Input((8,)), inner],
        "bidirectional": [keras.Input((4, 8)), rnn],
        "distributed": [keras.Input((4, 8)), L.TimeDistributed(dense)],
        "stateful": [keras.Input(batch_shape=(2, 4, 8)), *stateful],
    }


def with_units(config, units):
    """Changes the units of the layer `wide` wherever it is in a configuration."""

    def change(part):
        return {**part, "units": units} if str(part.get("name")).endswith("wide") else part

    return json.loads(json.dumps(config), object_hook=change)


@pytest.mark.parametrize("units", [10**7, 10**12])
@pytest.mark.parametrize("place", too_large())
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_load_model_refuses_more_weights_than_the_file_holds(place, ending, units, tmp_path):
    path = tmp_path / f"model.{ending}"
    keras.Sequential(too_large()[place]).save(path)
    damage(path, lambda config: with_units(config, units))
    with pytest.raises(InvalidFileError, match="more weights than the file holds.*at most"):
        keras_qat.load_model(path)
    # No weights are left that Keras would assign later.
    with keras.StatelessScope():
        pass


def damage(path, change):
    """Changes the configuration in a file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(change(json.loads(file.attrs["model_config"])))
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(change(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_check_budget_leaves_other_threads_alone():
    """A model that another thread makes meanwhile has initialized weights."""
    built = []

    def make():
        thread = threading.Thread(target=lambda: built.append(wide()))
        thread.start()
        thread.join()
        wide()

    def wide():
        return keras.Sequential([keras.Input((4096,)), L.Dense(5000)])

    with contextlib.suppress(InvalidFileError):
        budget.check_budget(0, make)
    assert np.isfinite(built[0].layers[0].kernel).all()
    assert np.isfinite(wide().layers[0].kernel).all()
