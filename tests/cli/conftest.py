"""Fixtures of the tests of the command line. Files are made once, and no test changes them."""

import json

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat_cli.main import main
from tests.models import labels, quantized_small_network, small_images, small_network


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Makes a float model, a quantized model, its file, and data."""
    folder = tmp_path_factory.mktemp("command-line")
    paths = {name: folder / name for name in ("float.keras", "qat.keras", "file.tflite")}
    model = small_network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)  # Keras warns if it is not compiled
    model.save(paths["float.keras"])
    quantized_small_network().save(paths["qat.keras"])
    keras_qat.export_litert(quantized_small_network(), paths["file.tflite"])
    paths["data.npz"] = folder / "data.npz"
    np.savez(paths["data.npz"], x=small_images(20), y=labels(20))
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="session")
def unsupported(tmp_path_factory):
    """Makes a model that has no integer form."""
    image = keras.Input((4, 4, 3), name="image")
    path = tmp_path_factory.mktemp("unsupported") / "model.keras"
    # Layers have names, since Keras's default names depend on earlier layers of the process.
    keras.Model(image, keras.layers.Activation("sparsemax", name="sparse")(image)).save(path)
    return str(path)


@pytest.fixture
def as_json(capsys):
    """Runs a command with `--json`. Returns the exit code and the results."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run
