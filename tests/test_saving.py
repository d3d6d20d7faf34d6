"""Saving and loading. The oracle is a fresh process that imports only `keras_qat`."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import MissingRangeError, NewerVersionError
from keras_qat.layers import QuantizedModel
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from tests.models import (
    images,
    labels,
    quantized,
    quantized_network,
    quantized_small_network,
    small_images,
    small_network,
)
from tests.processes import run_python

FRESH = """
import json, sys
import keras_qat
import keras, numpy as np
folder = sys.argv[1]
arrays = np.load(folder + "/arrays.npz")
model = keras.models.load_model(folder + "/q.keras")
equal = bool((model.predict(arrays["x"], verbose=0) == arrays["y"]).all())
keras_qat.export_litert(model, folder + "/fresh.tflite")
before = [np.array(v) for v in model.trainable_variables]
step = int(model.optimizer.iterations)
loss = model.fit(arrays["x"], arrays["labels"], batch_size=16, verbose=0).history["loss"][0]
moved = all((a != np.array(b)).any() for a, b in zip(before, model.trainable_variables))
print(json.dumps({
    "type": type(model).__name__, "equal": equal, "step": step, "loss": loss, "moved": moved,
    "of h5": type(keras.models.load_model(folder + "/q.h5")).__name__,
}))
"""


def bytes_of(model):
    return to_bytes(lower_model(model))


def outputs(model, data):
    return np.asarray(model(data, training=False))


def test_saved_model_resumes_in_a_fresh_process(tmp_path):
    data, model = small_images(), quantized(small_network(), small_images())
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    model.fit(data, labels(), batch_size=16, epochs=2, verbose=0)
    model.save(tmp_path / "q.keras")
    model.save(tmp_path / "q.h5")
    np.savez(tmp_path / "arrays.npz", x=data, y=model.predict(data, verbose=0), labels=labels())
    keras_qat.export_litert(model, tmp_path / "here.tflite")
    found = run_python(FRESH, tmp_path)
    here, fresh = ((tmp_path / f"{name}.tflite").read_bytes() for name in ("here", "fresh"))
    assert fresh == here
    # One more step here equals the step of the fresh process.
    loss = model.fit(data, labels(), batch_size=16, verbose=0).history["loss"][0]
    assert found.pop("loss") == pytest.approx(loss, rel=1e-5)
    assert {found.pop("type"), found.pop("of h5")} == {"QuantizedModel"}
    assert found == {"equal": True, "step": 2, "moved": True}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "q.keras"
    quantized_network().save(path)
    return keras.models.load_model(path)


def test_loaded_model_exports_equal_bytes(loaded):
    assert type(loaded) is QuantizedModel and loaded.name == "network"
    assert bytes_of(loaded) == bytes_of(quantized_network())
    configurations = (json.dumps(m.get_config()) for m in (loaded, quantized_network()))
    assert next(configurations) == next(configurations)


def test_loaded_model_is_exact(loaded, tmp_path):
    keras_qat.export_litert(loaded, tmp_path / "model.tflite")
    data = images()
    assert keras_qat.verify(
        loaded, tmp_path / "model.tflite", data, kernels="default", verbose=0
    ).exact


def test_saved_weights_give_equal_outputs(tmp_path):
    path = tmp_path / "q.weights.h5"
    model, data = quantized_small_network(), small_images()
    model.save_weights(path)
    other = keras_qat.quantize_model(small_network(seed=1))
    other.load_weights(path)
    assert (outputs(other, data) == outputs(model, data)).all()
    assert bytes_of(other) == bytes_of(model)


def test_keras_clone_of_a_quantized_model_is_equal():
    model, data = quantized_small_network(), small_images()
    clone = keras.models.clone_model(model)
    assert type(clone) is QuantizedModel
    clone.set_weights(model.get_weights())
    assert (outputs(clone, data) == outputs(model, data)).all()
    assert bytes_of(clone) == bytes_of(model)
    ours, theirs = clone.get_layer("conv"), model.get_layer("conv")
    assert ours.neighbours.inputs[0] is not theirs.neighbours.inputs[0]


def test_loaded_model_without_ranges_can_be_calibrated(tmp_path):
    keras_qat.quantize_model(small_network()).save(tmp_path / "q.keras")
    model = keras.models.load_model(tmp_path / "q.keras")
    with pytest.raises(MissingRangeError):
        bytes_of(model)
    keras_qat.calibrate(model, small_images(), verbose=0)
    assert bytes_of(model) == bytes_of(quantized_small_network())


def test_loaded_model_of_several_inputs_outputs_and_shared_layers(tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    dense = keras.layers.Dense(3, activation="relu", name="d")
    source = keras.Model({"a": a, "b": b}, {"y": dense(a), "z": [dense(b), b]})
    data = {"a": np.eye(4, dtype="float32"), "b": 2 * np.eye(4, dtype="float32")}
    model = quantized(source, data)
    model.save(tmp_path / "q.keras")
    other = keras.models.load_model(tmp_path / "q.keras")
    first, second = (keras.tree.flatten(each(data)) for each in (model, other))
    for one, two in zip(first, second, strict=True):
        assert (np.asarray(one) == np.asarray(two)).all()
    assert bytes_of(other) == bytes_of(model)


def rewritten(path, version):
    """Writes another version into a saved model."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    assert config["config"]["keras_qat_version"] == keras_qat.__version__
    config["config"]["keras_qat_version"] = version
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)


@pytest.mark.parametrize("make", [keras_qat.quantize_model, keras_qat.clone_model])
def test_load_refuses_a_later_major_version(make, tmp_path):
    path = tmp_path / "q.keras"
    make(small_network()).save(path)
    rewritten(path, "7.1.0")
    with pytest.raises(NewerVersionError, match="keras_qat 7.1.0.*upgrade 'keras_qat>=7'") as error:
        keras.models.load_model(path)
    assert error.value.layer == "small_network"


@pytest.mark.parametrize("version", ["0.0.1", "0.99.0"])
def test_load_takes_the_same_major_version(version, tmp_path):
    path = tmp_path / "q.keras"
    quantized_small_network().save(path)
    rewritten(path, version)
    assert bytes_of(keras.models.load_model(path)) == bytes_of(quantized_small_network())
