"""Files with code that would leave a mark on the disk if it were run."""

import base64
import json
import marshal
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError, UnsafeFileError


def bytecode(mark):
    """Returns a function that makes a file, in the form that Keras writes."""
    source = f"lambda x: [open({str(mark)!r}, 'w').close(), x][1]"
    code = marshal.dumps(eval(source).__code__)
    return base64.encodebytes(code).decode("ascii")


def dense():
    return keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="dense")])


def old_file(path, layer):
    """Writes a file of Keras 2 with an input and a layer."""
    config = {"name": "net", "layers": [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}},
        layer,
    ]}  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        file.create_group("model_weights").attrs["layer_names"] = [b"x"]
        file["model_weights"].create_group("x").attrs["weight_names"] = np.array([], "S1")


def archive(path, change):
    """Writes a file of Keras 3 with a changed configuration."""
    dense().save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def old_lambda(mark, function_type="lambda"):
    config = {"name": "code", "function": [bytecode(mark), None, None]}
    config |= {"function_type": function_type, "module": "__main__", "arguments": {}}
    config |= {"output_shape": None, "output_shape_type": "raw", "output_shape_module": None}
    return {"class_name": "Lambda", "config": config}


def test_load_model_does_not_run_code_of_keras_2(tmp_path):
    path, mark = tmp_path / "old.h5", tmp_path / "mark"
    old_file(path, old_lambda(mark))
    with pytest.raises(UnsafeFileError, match="Lambda.*Python code.*safe_mode=False") as raised:
        keras_qat.load_model(path)
    assert raised.value.layer == "code" and str(path) in str(raised.value)
    assert not mark.exists()


def test_load_model_runs_code_if_safe_mode_is_off(tmp_path):
    path, mark = tmp_path / "old.h5", tmp_path / "mark"
    old_file(path, old_lambda(mark))
    model = keras_qat.load_model(path, safe_mode=False)
    model(np.ones((1, 3), "float32"))
    assert mark.exists()


def test_load_model_takes_named_functions_from_the_caller(tmp_path):
    layer = old_lambda(tmp_path / "mark")
    layer["config"] |= {"function": "doubled", "function_type": "function"}
    old_file(tmp_path / "old.h5", layer)
    with pytest.raises(InvalidFileError, match="'doubled'.*custom_objects"):
        keras_qat.load_model(tmp_path / "old.h5")
    model = keras_qat.load_model(tmp_path / "old.h5", custom_objects={"doubled": lambda x: 2.0 * x})
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), np.full((1, 3), 2.0))


@pytest.mark.parametrize(
    "key",
    ["activation", "kernel_initializer", "kernel_regularizer", "quantization_config", "scale"],
)
def test_load_model_refuses_code_hidden_in_a_layer_of_keras_2(tmp_path, key):
    path, mark = tmp_path / "old.h5", tmp_path / "mark"
    code = {"class_name": "Constant", "config": {"value": lambda_of_keras_3(mark)}}
    old_file(path, {"class_name": "Dense", "config": {"name": "dense", "units": 2, key: code}})
    with pytest.raises(UnsafeFileError, match="safe_mode=False"):
        keras_qat.load_model(path)
    assert not mark.exists()


@pytest.mark.parametrize("version", ["2.4.0", "3.0.0"])
def test_load_model_refuses_code_in_the_training_configuration(tmp_path, version):
    path, mark = tmp_path / "model.h5", tmp_path / "mark"
    old_file(path, {"class_name": "ReLU", "config": {"name": "relu"}})
    if version == "3.0.0":
        dense().save(path)
    training = {"optimizer_config": {"class_name": "SGD", "config": {}}}
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps({**training, "loss": lambda_of_keras_3(mark)})
    with pytest.raises(UnsafeFileError, match="safe_mode=False"):
        keras_qat.load_model(path)
    assert not mark.exists()


def lambda_of_keras_3(mark):
    parts = {"code": bytecode(mark), "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": parts}


def hidden_in(mark):
    """Returns the places in a configuration where a function could be."""
    code = lambda_of_keras_3(mark)

    def lambda_layer(config):
        layer = config["config"]["layers"][1]
        layer |= {"class_name": "Lambda", "config": {"name": "code", "function": code}}

    def activation(config):
        config["config"]["layers"][1]["config"]["activation"] = code

    def initializer(config):
        config["config"]["layers"][1]["config"]["kernel_initializer"] = code

    def of_a_layer_in_a_layer(config):
        layer = config["config"]["layers"][1]
        inner = {"module": "keras.layers", "class_name": "Lambda",
                 "config": {"name": "code", "function": code}}  # fmt: skip
        layer |= {"class_name": "TimeDistributed", "config": {"name": "wrap", "layer": inner}}

    def loss(config):
        config["compile_config"] = {"optimizer": "sgd", "loss": code}

    def saved_model(config):
        layer = config["config"]["layers"][1]
        layer |= {"class_name": "TFSMLayer", "config": {"name": "tf", "filepath": "/tmp/model"}}

    def words_of_a_file(config):
        layer = config["config"]["layers"][1]
        layer |= {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}

    return [lambda_layer, activation, initializer, of_a_layer_in_a_layer, loss, saved_model,
            words_of_a_file]  # fmt: skip


@pytest.mark.parametrize("place", range(7))
def test_load_model_does_not_run_code_of_keras_3(tmp_path, place):
    path, mark = tmp_path / "new.keras", tmp_path / "mark"
    archive(path, hidden_in(mark)[place])
    with pytest.raises(UnsafeFileError) as raised:
        keras_qat.load_model(path)
    assert str(path) in str(raised.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins_of_mine", "run"),
        ("keras.utils", "get_file"),
        ("keras.src.utils.python_utils", "func_load"),
        ("keras.saving", "load_model"),
        ("keras.config", "enable_unsafe_deserialization"),
    ],
)
def test_load_model_refuses_functions_of_other_modules(tmp_path, module, name):
    function = {"module": module, "class_name": "function", "config": name}

    def change(config):
        config["config"]["layers"][1]["config"]["activation"] = function

    archive(tmp_path / "new.keras", change)
    with pytest.raises(InvalidFileError, match="not Keras's"):
        keras_qat.load_model(tmp_path / "new.keras")


def test_load_model_does_not_import_modules(tmp_path, monkeypatch):
    (tmp_path / "module_of_a_file.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)

    def change(config):
        layer = config["config"]["layers"][1]
        layer |= {"module": "module_of_a_file", "class_name": "Layer", "registered_name": "Layer"}

    archive(tmp_path / "new.keras", change)
    with pytest.raises(InvalidFileError, match="module_of_a_file"):
        keras_qat.load_model(tmp_path / "new.keras")
    assert not (tmp_path / "mark").exists()


def test_load_model_refuses_code_in_an_h5_of_keras_3(tmp_path):
    path, mark = tmp_path / "new.h5", tmp_path / "mark"
    dense().save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1] = old_lambda(mark)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UnsafeFileError):
        keras_qat.load_model(path)
    assert not mark.exists()


def test_load_model_refuses_a_zip_bomb(tmp_path):
    dense().save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "new.keras", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, bytes(2**27) if name == "config.json" else content)
    with pytest.raises(InvalidFileError, match="unpack"):
        keras_qat.load_model(tmp_path / "new.keras")


def test_load_model_refuses_a_dataset_larger_than_the_file(tmp_path):
    old_file(tmp_path / "old.h5", {"class_name": "Dense", "config": {"name": "dense", "units": 2}})
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file["model_weights"].attrs["layer_names"] = [b"dense"]
        group = file["model_weights"].create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
        group.create_dataset("kernel:0", (3, 2), "float32", chunks=(3, 2))  # never written
        group["bias:0"] = np.zeros(2, "float32")
    with pytest.raises(InvalidFileError, match="claims more numbers"):
        keras_qat.load_model(tmp_path / "old.h5")
