import json
import os
import pathlib
import re
import shutil

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError, InvalidFileWarning, UnsafeFileError
from tests.processes import run_python
from tests.quick import some_quick

SOURCES = sorted(pathlib.Path(__file__).parent.glob("keras2_*.py"))
NAMES = re.findall(
    r"^@model\ndef (\w+)\(", "\n".join(path.read_text() for path in SOURCES), re.MULTILINE
)
# A folder with the reference models of MLPerf Tiny as .h5 files. Without it the test is skipped.
MLPERF_FOLDER = os.environ.get("MLPERF_TINY_MODELS", "")
MLPERF = ("mobilenet_v1_025_vww96_keras2", "resnet8_cifar10_keras2")
# Public layers that no file has, and the reason.
WITHOUT_FILE = {
    "InputSpec": "no layer",
    "Lambda": "code: see test_safety.py",
    "Layer": "abstract",
    "RandomCrop": "Keras 3's does not crop at inference: refused",
    "SpectralNormalization": "tf_keras 2.21 cannot build it: it refuses its own InputSpec",
    "Wrapper": "abstract",
}


# Its masks get lost with a warning, which has its own test below.
NAMES.remove("masked_nested")


def computed(model, inputs):
    given = inputs[0] if len(inputs) == 1 else keras.tree.pack_sequence_as(model.input, inputs)
    return [np.asarray(y) for y in keras.tree.flatten(model(given, training=False))]


def with_config(path, change):
    """Changes the configuration of the model in a file."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


@pytest.fixture(scope="module", params=NAMES)
def loaded(request, keras2):
    """A loaded model, inputs, its outputs and those of Keras 2. No test changes the model."""
    inputs, expected = keras2.arrays(request.param)
    model = keras_qat.load_model(keras2.path(request.param))
    return model, inputs, computed(model, inputs), expected


@pytest.mark.filterwarnings("ignore:The loss or metric")
def test_load_model_of_keras_2_gives_equal_outputs(loaded):
    _, _, outputs, expected = loaded
    for output, other in zip(outputs, expected, strict=True):
        assert output.shape == other.shape
        np.testing.assert_allclose(output, other, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_load_model_warns_of_masks_that_keras_3_does_not_pass(keras2):
    with pytest.warns(InvalidFileWarning, match="without their mask"):
        keras_qat.load_model(keras2.path("masked_nested"))


def test_keras_2_files_have_every_layer_that_keras_3_has(keras2):
    found = {name for names in keras2.classes["models"].values() for name in names}
    common = {name for name in keras2.classes["public"] if hasattr(keras.layers, name)}
    assert len(NAMES) >= 25
    assert common - found == set(WITHOUT_FILE)


@pytest.mark.parametrize("loaded", some_quick(NAMES, *range(0, len(NAMES), 3)), indirect=True)
@pytest.mark.filterwarnings("ignore:The loss or metric")
def test_load_model_of_keras_2_can_be_saved_and_loaded(loaded, tmp_path):
    model, inputs, expected, _ = loaded
    model.save(tmp_path / "new.keras")
    for output, other in zip(
        computed(keras_qat.load_model(tmp_path / "new.keras"), inputs), expected, strict=True
    ):
        np.testing.assert_array_equal(output, other)


PREDICT = """
import json, sys
import numpy as np
import tf_keras
model = tf_keras.models.load_model(sys.argv[1], compile=False)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
print(json.dumps(tf_keras.__version__))
"""


@pytest.mark.slow
@pytest.mark.skipif(not MLPERF_FOLDER, reason="MLPERF_TINY_MODELS does not name their folder")
@pytest.mark.parametrize("name", MLPERF)
def test_load_model_of_mlperf_tiny_models_exports_exactly(name, tmp_path):
    path = pathlib.Path(MLPERF_FOLDER, f"{name}.h5")
    model = keras_qat.load_model(path)
    images = np.random.default_rng(0).random((32, *model.input_shape[1:]), "float32")
    np.save(tmp_path / "images.npy", images)
    run_python(PREDICT, path, tmp_path / "images.npy", tmp_path / "expected.npy")
    found, expected = model.predict(images, verbose=0), np.load(tmp_path / "expected.npy")
    assert np.abs(found - expected).max() <= 1e-5
    qat = keras_qat.quantize_model(model, calibration_data=images)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", images[:8])
    assert report.exact


def test_load_model_compiles_a_compiled_model(keras2):
    model = keras_qat.load_model(keras2.path("compiled"))
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == pytest.approx(0.9)
    # `decay` of Keras 2: the rate of step 10 is rate / (1 + decay * 10).
    model.optimizer.iterations.assign(10)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05 / (1 + 1e-4 * 10))
    history = model.fit(np.ones((4, 4)), np.eye(3)[[0, 1, 2, 0]], verbose=0).history
    assert "accuracy" in history


def test_load_model_takes_lr_as_learning_rate(keras2, tmp_path):
    path = tmp_path / "old.h5"
    shutil.copy(keras2.path("compiled"), path)
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        training["optimizer_config"] = {"class_name": "SGD", "config": {"lr": 0.125, "decay": 0.0}}
        file.attrs["training_config"] = json.dumps(training)
    assert float(keras_qat.load_model(path).optimizer.learning_rate) == 0.125


@pytest.mark.parametrize("class_name", ["LossScaleOptimizer", "LossScaleOptimizerV3"])
def test_load_model_unwraps_the_optimizer_of_mixed_precision(keras2, tmp_path, class_name):
    path = tmp_path / "old.h5"
    shutil.copy(keras2.path("compiled"), path)
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        inner = {"inner_optimizer": training["optimizer_config"], "dynamic": True}
        config = {**inner, "initial_scale": 1024.0, "dynamic_growth_steps": 500}
        training["optimizer_config"] = {"class_name": class_name, "config": config}
        file.attrs["training_config"] = json.dumps(training)
    optimizer = keras_qat.load_model(path).optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert (optimizer.initial_scale, optimizer.dynamic_growth_steps) == (1024.0, 500)
    assert optimizer.inner_optimizer.momentum == pytest.approx(0.9)


def test_load_model_drops_added_losses_with_a_warning(keras2):
    with pytest.warns(InvalidFileWarning) as warned:
        model = keras_qat.load_model(keras2.path("added_losses"))
    assert {re.findall(r"layer '(\w+)'", str(each.message))[0] for each in warned} == {
        "add_loss",
        "add_metric",
    }
    assert len(model.layers) == 2 and not model.losses


def test_load_model_of_functions_of_constants_exports_exactly(keras2, tmp_path):
    model = keras_qat.load_model(keras2.path("functions_of_constants"))
    (images,), _ = keras2.arrays("functions_of_constants")
    qat = keras_qat.quantize_model(model, calibration_data=images)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", images).exact


def test_load_model_leaves_a_model_of_an_unknown_loss_uncompiled(keras2, tmp_path):
    path = tmp_path / "old.h5"
    shutil.copy(keras2.path("compiled"), path)
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        training["loss"] = "focal_of_mine"
        file.attrs["training_config"] = json.dumps(training)
    with pytest.warns(InvalidFileWarning, match="focal_of_mine"):
        model = keras_qat.load_model(path)
    assert not model.compiled


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_load_model_of_keras_3(tmp_path, ending):
    x = keras.Input((6, 6, 3))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    # Keras 3 itself cannot load operations from `.h5`.
    y = keras.layers.ReLU(6.0)(y) if ending == ".h5" else keras.ops.relu6(y) * 0.5
    model = keras.Model(x, y)
    model.compile("adam", "mse", ["mae"])
    model.optimizer.build(model.trainable_variables)
    image = np.random.default_rng(0).random((2, 6, 6, 3), "float32")
    model.save(tmp_path / f"model{ending}")
    loaded = keras_qat.load_model(tmp_path / f"model{ending}")
    np.testing.assert_array_equal(loaded(image), model(image))
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)


def test_load_model_of_a_quantized_model(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3)])
    image = np.random.default_rng(0).random((8, 6, 6, 3), "float32")
    qat = keras_qat.quantize_model(model, calibration_data=image)
    qat.save(tmp_path / "qat.keras")
    np.testing.assert_array_equal(keras_qat.load_model(tmp_path / "qat.keras")(image), qat(image))


def test_load_model_keeps_the_names_of_operations(keras2):
    model = keras_qat.load_model(keras2.path("functions_of_shapes"))
    names = [operation.name for operation in model.operations]
    assert "tf.compat.v1.transpose" in names and "tf.concat_1" in names
    assert len(set(names)) == len(names)


def test_load_model_of_an_old_hard_sigmoid_can_be_quantized(keras2):
    model = keras_qat.load_model(keras2.path("activation_objects"))
    inputs, _ = keras2.arrays("activation_objects")
    qat = keras_qat.quantize_model(model, calibration_data=inputs[0])
    assert qat(inputs[0]).shape == model(inputs[0]).shape


def test_load_model_takes_custom_layers_from_the_caller(keras2, tmp_path):
    path = tmp_path / "custom.h5"
    shutil.copy(keras2.path("deferred_sequential"), path)

    def rename(config):
        config["config"]["layers"][-1]["class_name"] = "Custom>MyDense"

    with_config(path, rename)
    with pytest.raises(InvalidFileError, match="MyDense") as raised:
        keras_qat.load_model(path)
    assert "custom_objects" in str(raised.value)

    class MyDense(keras.layers.Dense):
        pass

    model = keras_qat.load_model(path, custom_objects={"MyDense": MyDense})
    assert isinstance(model.layers[-1], MyDense)


@pytest.mark.parametrize(
    "function, named", [("signal.stft", "tf.signal.stft"), ("raw_ops.Foo", "tf.raw_ops.Foo")]
)
def test_load_model_names_an_unknown_function(keras2, tmp_path, function, named):
    path = tmp_path / "unknown.h5"
    shutil.copy(keras2.path("functions_of_images"), path)

    def change(config):
        layer = next(x for x in config["config"]["layers"] if x["class_name"] == "TFOpLambda")
        layer["config"]["function"] = function

    with_config(path, change)
    with pytest.raises(InvalidFileError, match=re.escape(named)) as raised:
        keras_qat.load_model(path)
    assert str(path) in str(raised.value)


def test_load_model_refuses_a_file_of_weights(keras2):
    with pytest.raises(InvalidFileError, match="no model.*load_weights"):
        keras_qat.load_model(keras2.folder / "dense_weights.h5")


def test_load_model_names_a_path_that_is_not_a_keras_file(tmp_path):
    path = tmp_path / "model.h5"
    with pytest.raises(InvalidFileError, match=f"no such file.*{re.escape(str(path))}"):
        keras_qat.load_model(path)
    with pytest.raises(InvalidFileError, match=f"folder.*{re.escape(str(tmp_path))}"):
        keras_qat.load_model(tmp_path)
    path.write_bytes(b"not a model" * 100)
    with pytest.raises(InvalidFileError, match=f"not a Keras file.*{re.escape(str(path))}"):
        keras_qat.load_model(path)


def test_load_model_refuses_an_archive_of_keras_2_with_advice(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / "new.keras")
    change_archive(tmp_path / "new.keras", "metadata.json", b'{"keras_version": "2.15.0"}')
    with pytest.raises(InvalidFileError, match=r"2\.15\.0.*model\.h5"):
        keras_qat.load_model(tmp_path / "new.keras")


def change_archive(path, name, content):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, old in members.items():
            archive.writestr(each, content if each == name else old)


def test_load_model_refuses_sizes_that_fill_the_memory(keras2, tmp_path):
    path = tmp_path / "large.h5"
    shutil.copy(keras2.path("dense"), path)

    def enlarge(config):
        config["config"]["layers"][1]["config"]["units"] = 10**10

    with_config(path, enlarge)
    with pytest.raises(InvalidFileError, match="more weights than the file holds"):
        keras_qat.load_model(path)
    assert keras.layers.Layer.add_weight.__module__.startswith("keras.")


def test_load_model_does_not_follow_links_out_of_a_file(keras2, tmp_path):
    path = tmp_path / "link.h5"
    shutil.copy(keras2.path("dense"), path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/dense/dense"]
        del group["kernel:0"]
        group["kernel:0"] = h5py.ExternalLink(str(keras2.path("dense")), "/model_weights")
    with pytest.raises(UnsafeFileError, match="link"):
        keras_qat.load_model(path)
