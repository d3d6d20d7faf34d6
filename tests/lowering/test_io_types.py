"""The type of each input and output. The oracle is LiteRT's interpreter."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.errors import ExportError
from keras_qat.lowering.io_types import INFERENCE_TYPES, io_types

RNG = np.random.default_rng(0)
A = RNG.normal(size=(8, 5)).astype("float32")
B = RNG.normal(1, 3, size=(8, 4)).astype("float32")


def two_by_three(as_dict=False):
    """Makes three outputs: one tensor under two names, and an input."""
    a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
    y = layers.Add(name="sum")([layers.Dense(4, name="dense")(a), b])
    drop = layers.Dropout(0.5, name="drop")(y)
    return keras.Model([a, b], {"z": y, "w": drop, "x": b} if as_dict else [y, drop, b])


def quantized(model, data=(A, B)):
    result = keras_qat.quantize_model(model)
    keras_qat.calibrate(result, data, verbose=0)
    return result


@pytest.fixture(scope="module")
def model():
    return quantized(two_by_three())


@pytest.fixture(scope="module")
def with_ids():
    ids, x = keras.Input((3,), name="ids", dtype="int32"), keras.Input((3, 2), name="x")
    source = keras.Model([ids, x], layers.Add(name="sum")([layers.Embedding(9, 2)(ids), x]))
    return quantized(source, (np.zeros((4, 3), "int32"), np.ones((4, 3, 2), "float32")))


def types_in_file(model, path, **arguments):
    keras_qat.export_litert(model, path, **arguments)
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return tuple(
        {name: np.dtype(each["dtype"]).name for name, each in details.items()}
        for details in (runner.get_input_details(), runner.get_output_details())
    )


EACH = list(itertools.product(INFERENCE_TYPES, INFERENCE_TYPES))


@pytest.mark.parametrize("kinds", EACH, ids="-".join)
def test_export_with_types_per_input_and_output_is_exact(kinds, model, tmp_path):
    path, last = tmp_path / "model.tflite", INFERENCE_TYPES[EACH.index(kinds) % 3]
    names = model.output_names
    wanted = dict(zip(names, (*kinds, last), strict=True))
    found = types_in_file(
        model, path, inference_input_type=kinds[::-1], inference_output_type=wanted
    )
    assert found == ({"a": kinds[1], "b": kinds[0]}, wanted)
    report = keras_qat.verify(model, path, (A, B), verbose=0)
    assert report.exact
    # The tensor that is requested in two types is converted twice.
    assert len(report.outputs) == 3 - (kinds[0] == kinds[1])


def test_export_gives_names_without_a_type_int8(model, tmp_path):
    found = types_in_file(
        model,
        tmp_path / "model.tflite",
        inference_input_type={"b": "float32"},
        inference_output_type={"drop": "uint8"},
    )
    assert found[0] == {"a": "int8", "b": "float32"}
    assert found[1] == {**dict.fromkeys(model.output_names, "int8"), "drop": "uint8"}


def test_export_takes_types_of_dict_outputs_by_key_or_order(tmp_path):
    model, path = quantized(two_by_three(as_dict=True)), tmp_path / "model.tflite"
    expected = {"w": "float32", "x": "int8", "z": "uint8"}
    by_name = {"z": "uint8", "w": "float32"}
    for wanted in (by_name, ["uint8", "float32", "int8"]):
        assert types_in_file(model, path, inference_output_type=wanted)[1] == expected
        outputs = Interpreter(str(path)).get_output_details()
        assert [np.dtype(each["dtype"]).name for each in outputs] == ["uint8", "float32", "int8"]
        assert keras_qat.verify(model, path, (A, B), verbose=0).exact


@pytest.mark.parametrize("wanted", ["uint8", {"x": "uint8"}, ["int32", "uint8"]])
def test_export_writes_ids_as_int32(wanted, with_ids, tmp_path):
    found = types_in_file(with_ids, tmp_path / "model.tflite", inference_input_type=wanted)
    assert found[0] == {"ids": "int32", "x": "uint8"}


def test_export_refuses_other_types_for_ids(with_ids, tmp_path):
    with pytest.raises(ExportError, match="'ids'. Expected: 'int32', that of ids. Rec.*'uint8'"):
        keras_qat.export_litert(with_ids, tmp_path / "m", inference_input_type={"ids": "uint8"})


WRONG = {
    "unknown name": ({"c": "int8"}, r"names among \['a', 'b'\]. Received: 'c'. To fix it: "),
    "unknown type": ({"b": "int12"}, "Layer: 'b'. Expected: one of .*uint8.* Received: 'int12'"),
    "no type": ({"b": None}, "Layer: 'b'. Expected: one of .*uint8.* Received: None"),
    "unknown type in a list": (["int8", "int32"], "Layer: 'b'.*Received: 'int32'"),
    "too few": (["int8"], r"a list of 2 for \['a', 'b'\]. Received: \['int8'\]"),
    "too many": (["int8"] * 3, r"a list of 2 for \['a', 'b'\]"),
    "no sequence": (8, r"one type, a dict by name, or a list of 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_io_types_refuses_invalid_types(name):
    wanted, message = WRONG[name]
    with pytest.raises(ExportError, match=message):
        io_types(wanted, ["a", "b"], "inference_input_type")


def test_export_refuses_types_of_unknown_names(model, tmp_path):
    message = "`inference_output_type` has a name.*'drop'.*Received: 'head'"
    with pytest.raises(ExportError, match=message):
        keras_qat.export_litert(
            model, tmp_path / "model.tflite", inference_output_type={"head": "uint8"}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.uint8, np.dtype("uint8"), tf.uint8])
def test_export_takes_types_of_numpy_and_tensorflow(kind, model, tmp_path):
    found = types_in_file(
        model,
        tmp_path / "model.tflite",
        inference_input_type=kind,
        inference_output_type={"sum": kind},
    )
    assert found[0] == {"a": "uint8", "b": "uint8"} and found[1]["sum"] == "uint8"
    with pytest.raises(ExportError, match="Received: .*float16.* To fix it: "):
        types_in_file(model, tmp_path / "other.tflite", inference_input_type=np.float16)
