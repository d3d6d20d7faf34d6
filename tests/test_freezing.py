"""freeze_batch_norm: nothing of a batch normalization moves, and the file stays exact."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import NotQuantizedError
from tests.models import images, labels, quantized, small_network

DATA = images(16, shape=(4, 4, 3))


def trained(model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(DATA, labels(16), verbose=0)
    norms = (getattr(layer, "batch_normalization", None) for layer in model.layers)
    variables = [v for norm in norms if norm is not None for v in norm.variables]
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def is_same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_frozen_batch_norms_stay_as_they_are_and_are_exact(tmp_path):
    qat = quantized(small_network(), DATA)
    before = trained(qat)
    keras_qat.freeze_batch_norm(qat)
    assert len(before) == 4 and is_same(trained(qat), before)
    qat.save(tmp_path / "model.keras")
    assert is_same(trained(keras.saving.load_model(tmp_path / "model.keras")), before)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", DATA, verbose=0).exact
    keras_qat.unfreeze_batch_norm(keras.Sequential([qat]))
    assert not is_same(trained(qat), before)


def test_a_model_without_quantized_batch_norms_is_refused():
    with pytest.raises(NotQuantizedError, match="no batch normalization"):
        keras_qat.freeze_batch_norm(small_network())
