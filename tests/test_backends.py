"""One model on TensorFlow, JAX and PyTorch: the same file, and `.keras` files for all."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_qat
from tests.models import images, quantized_network
from tests.processes import run_python

SCRIPT = """
import json, sys
import numpy as np
import keras, keras_qat
folder, name = sys.argv[1:]
model = keras.saving.load_model(f"{folder}/model.keras")
keras_qat.export_litert(model, f"{folder}/{name}.tflite")
outputs = model.predict(np.load(f"{folder}/x.npy"), verbose=0)
expected = np.load(f"{folder}/y.npy")
model.save(f"{folder}/{name}.keras")
print(json.dumps([keras.backend.backend(), bool((outputs == expected).all())]))
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts the other backends")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_same_weights_give_the_same_file_and_load_on_another_backend(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = quantized_network()
    model.save(tmp_path / "model.keras")
    keras_qat.export_litert(model, tmp_path / "model.tflite")
    np.save(tmp_path / "x.npy", images())
    np.save(tmp_path / "y.npy", model.predict(images(), verbose=0))
    assert run_python(SCRIPT, tmp_path, backend, backend=backend) == [backend, True]
    content = (tmp_path / "model.tflite").read_bytes()
    assert (tmp_path / f"{backend}.tflite").read_bytes() == content
    back = keras.saving.load_model(tmp_path / f"{backend}.keras")
    keras_qat.export_litert(back, tmp_path / "back.tflite")
    assert (tmp_path / "back.tflite").read_bytes() == content
