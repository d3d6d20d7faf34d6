"""`custom_objects` provides functions that the file has as a name or as code."""

import base64
import codecs
import json
import marshal

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError, UnsafeFileError
from keras_qat.loading.files.bytecode import is_of_this_python
from tests.loading.test_safety import archive, old_file

# Bytecode of Python 3.5 for `lambda x: x / 127.5 - 1`, and of Python 3.9 for `lambda x: x + 1`.
PYTHON_3_5 = (
    b"\xe3\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00S\x00\x00\x00s\n\x00\x00"
    b"\x00|\x00\x00d\x01\x00\x1bd\x02\x00\x18S)\x03Ng\x00\x00\x00\x00\x00\xe0_@\xe9\x01\x00\x00\x00"
    b"\xa9\x00)\x01\xda\x01x"
)
PYTHON_3_9 = (
    b"\xe3\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00C\x00\x00"
    b"\x00s\x08\x00\x00\x00|\x00d\x01\x17\x00S\x00)\x02N\xe9\x01\x00\x00\x00\xa9\x00)\x01\xda\x01x"
)
OWN = marshal.dumps((lambda x: x + 1).__code__)


def written(code):
    """Returns bytecode as Keras 2 writes it."""
    return base64.encodebytes(code).decode("ascii")


def relu20(x):
    return keras.ops.clip(x, 0, 20)


class Doubled(keras.initializers.Initializer):
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 2.0 * self.factor, dtype)

    def get_config(self):
        return {"factor": self.factor}


class Weighted(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class Slow(keras.optimizers.SGD):
    pass


def largest(y_true, y_pred):
    return keras.ops.max(y_pred, axis=-1)


def dense(tmp_path, **arguments):
    """Writes a file of Keras 2 with a dense layer and its weights."""
    path = tmp_path / "old.h5"
    old_file(path, {"class_name": "Dense", "config": {"name": "dense", "units": 2, **arguments}})
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = [b"dense"]
        group = file["model_weights"].create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
        group["kernel:0"] = np.full((3, 2), 50.0, "float32")
        group["bias:0"] = np.zeros(2, "float32")
    return path


ACTIVATIONS = {
    "name": "relu20",
    "function": {"class_name": "function", "config": "relu20", "registered_name": "relu20"},
    "package": {
        "class_name": "function",
        "config": "mine>relu20",
        "registered_name": "mine>relu20",
    },
    "anonymous": "<lambda>",
    "anonymous code": {"value": [written(OWN), None, None]},
}


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_load_model_takes_the_callers_activation(form, tmp_path):
    path = dense(tmp_path, activation=ACTIVATIONS[form])
    name = "<lambda>" if "anonymous" in form else "relu20"
    model = keras_qat.load_model(path, custom_objects={name: relu20})
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), np.full((1, 2), 20.0))


@pytest.mark.parametrize("key", ["activation", "kernel_initializer", "kernel_constraint"])
def test_load_model_names_functions_unknown_to_keras(key, tmp_path):
    path = dense(tmp_path, **{key: "unheard_of"})
    with pytest.raises(InvalidFileError, match="not Keras's") as raised:
        keras_qat.load_model(path)
    assert raised.value.layer == "dense"
    assert 'custom_objects={"unheard_of": ...}' in str(raised.value)


def test_load_model_names_an_anonymous_activation(tmp_path):
    path = dense(tmp_path, activation=ACTIVATIONS["anonymous code"])
    with pytest.raises(InvalidFileError, match='custom_objects={"<lambda>": ...}'):
        keras_qat.load_model(path)


def test_load_model_takes_the_callers_initializer_regularizer_and_constraint(tmp_path):
    path = dense(
        tmp_path,
        kernel_initializer={"class_name": "Doubled", "config": {"factor": 3.0}},
        bias_initializer="Doubled",
        kernel_regularizer="halved",
        bias_constraint={"class_name": "function", "config": "halved"},
    )
    given = {"Doubled": Doubled, "halved": lambda x: x / 2}
    layer = keras_qat.load_model(path, custom_objects=given).layers[-1]
    assert layer.kernel_initializer.factor == 3.0 and layer.bias_initializer.factor == 1.0
    assert layer.kernel_regularizer is given["halved"] and layer.bias_constraint is given["halved"]


def test_load_model_takes_the_callers_names_before_those_of_keras(tmp_path):
    path = dense(tmp_path, activation="hard_sigmoid")
    model = keras_qat.load_model(path, custom_objects={"hard_sigmoid": relu20})
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), np.full((1, 2), 20.0))


@pytest.mark.parametrize("loss", ["largest", {"class_name": "Weighted", "config": {}}])
def test_load_model_compiles_with_the_callers_objects(loss, tmp_path):
    path = dense(tmp_path)
    wrapped = {"class_name": "MeanMetricWrapper", "config": {"fn": "largest", "name": "peak"}}
    training = {
        "optimizer_config": {"class_name": "Custom>Slow", "config": {"learning_rate": 0.25}},
        "loss": loss,
        "metrics": ["largest", wrapped],
    }
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps(training)
    given = {"largest": largest, "Weighted": Weighted, "Slow": Slow}
    model = keras_qat.load_model(path, custom_objects=given)
    assert isinstance(model.optimizer, Slow) and float(model.optimizer.learning_rate) == 0.25
    logs = model.evaluate(np.ones((1, 3)), np.zeros((1, 2)), verbose=0, return_dict=True)
    expected = 150.0 if loss == "largest" else 150.0**2
    assert logs == {"loss": expected, "largest": 150.0, "peak": 150.0}


def old_lambda(code, name="scale"):
    config = {"name": name, "function": [code, None, None], "function_type": "lambda"}
    return {"class_name": "Lambda", "config": config}


@pytest.mark.parametrize("safe_mode", [True, False])
@pytest.mark.parametrize("text", ["raw", "base64", "own"])
def test_load_model_replaces_the_code_of_a_lambda_layer(text, safe_mode, tmp_path):
    raw = codecs.decode(PYTHON_3_5, "raw_unicode_escape")
    code = {"raw": raw, "base64": written(PYTHON_3_9), "own": written(OWN)}[text]
    old_file(tmp_path / "old.h5", old_lambda(code))
    model = keras_qat.load_model(
        tmp_path / "old.h5", custom_objects={"scale": lambda x: 3.0 * x}, safe_mode=safe_mode
    )
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), np.full((1, 3), 3.0))


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_load_model_replaces_the_code_of_a_lambda_layer_of_keras_3(ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    layers = [keras.layers.Lambda(lambda x: x + 1, name="scale"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.save(path)
    content = path.read_bytes()
    with pytest.raises(UnsafeFileError, match='custom_objects={"scale"'):
        keras_qat.load_model(path)
    loaded = keras_qat.load_model(path, custom_objects={"scale": lambda x: 3.0 * x})
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(loaded(x), model.layers[1](3.0 * x))
    assert path.read_bytes() == content


@pytest.mark.parametrize("code", [PYTHON_3_5, PYTHON_3_9])
@pytest.mark.parametrize("safe_mode", [True, False])
def test_load_model_does_not_run_bytecode_of_another_python(code, safe_mode, tmp_path):
    old_file(tmp_path / "old.h5", old_lambda(written(code)))
    with pytest.raises(InvalidFileError, match='custom_objects={"scale"') as raised:
        keras_qat.load_model(tmp_path / "old.h5", safe_mode=safe_mode)
    assert raised.value.layer == "scale" and "safe_mode" not in str(raised.value)


def test_load_model_recommends_no_safe_mode_for_other_code_of_another_python(tmp_path):
    code = {"class_name": "__lambda__", "config": {"value": [written(PYTHON_3_9), None, None]}}

    def change(config):
        config["config"]["layers"][1]["config"]["activation"] = code

    archive(tmp_path / "new.keras", change)
    with pytest.raises(UnsafeFileError) as raised:
        keras_qat.load_model(tmp_path / "new.keras")
    assert "safe_mode" not in str(raised.value)


def test_load_model_does_not_replace_different_functions_by_one(tmp_path):
    parts = {"value": [written(OWN), None, None]}
    other = {"value": [written(marshal.dumps((lambda x: x * 2).__code__)), None, None]}
    path = dense(tmp_path, activation=parts, activity_regularizer=other)
    with pytest.raises(InvalidFileError, match="several anonymous functions"):
        keras_qat.load_model(path, custom_objects={"<lambda>": relu20})


def test_is_of_this_python_checks_the_layout_and_the_instructions():
    factor = 2.0
    for function in (lambda x: x, lambda x: x * factor, lambda x, y=1: max(x, y).real.bit_length()):
        code = marshal.dumps(function.__code__)
        assert is_of_this_python([written(code), None, None])
        assert not is_of_this_python([written(code[:30]), None, None])
    for code in (PYTHON_3_5, PYTHON_3_9, b"", b"text"):
        assert not is_of_this_python([written(code), None, None])
        assert not is_of_this_python({"config": {"value": [written(code)]}})
    assert not is_of_this_python(None) and not is_of_this_python([3])
