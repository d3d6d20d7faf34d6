"""The commands `export`, `verify`, `inspect` and `demo`. The oracles are the library and LiteRT."""

import json
import sys

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat_cli.main import main
from tests.models import labels, quantized_small_network, small_images, small_network

ARRAYS = "tests.cli.sources:arrays"


def test_commands_take_a_model_with_a_batch_size(tmp_path, as_json):
    image = keras.Input((4, 4, 3), batch_size=5, name="image")
    outputs = keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(image))
    keras.Model(image, outputs).save(tmp_path / "model.keras")
    names = [tmp_path / name for name in ("model.keras", "qat.keras", "file.tflite")]
    data = ("--data", ARRAYS)
    loss = ("--train-data", ARRAYS, "--loss", "sparse_categorical_crossentropy")
    assert as_json("quantize", names[0], "-o", names[1], *data, *loss)[0] == 0
    assert as_json("export", names[1], "-o", names[2])[0] == 0
    assert as_json("verify", names[1], names[2], *data)[1]["samples"] == 20
    some = (*data, "--samples", 18, "--runs", 1, "--kernels", "default")
    found = as_json("compare", names[1], names[2], *some)[1]
    assert found["samples"] == 18 and found["largest_difference"] == 0
    predicted = keras.saving.load_model(names[1]).predict(small_images(20), 5, verbose=0)[:18]
    accuracy = float((predicted.argmax(-1) == labels(18)).mean())
    assert [row["accuracy"] for row in found["models"]] == [accuracy] * 2


def test_export_writes_the_file_of_the_library(files, tmp_path, as_json):
    code, found = as_json("export", files["qat.keras"], "-o", tmp_path / "file.tflite")
    with open(files["file.tflite"], "rb") as file:
        content = file.read()
    assert code == 0 and (tmp_path / "file.tflite").read_bytes() == content
    assert found["size"] == len(content) and found["is_fully_integer"] is True
    options = ("--input-type", "uint8", "--output-type", "float32")
    as_json("export", files["qat.keras"], "-o", tmp_path / "other.tflite", *options)
    model = keras_qat.LiteRTModel(tmp_path / "other.tflite")
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == ("uint8", "float32")
    as_json("export", files["qat.keras"], "-o", tmp_path / "fixed.tflite", "--batch-size", "2")
    assert keras_qat.LiteRTModel(tmp_path / "fixed.tflite").inputs[0].shape[0] == 2


def test_export_ends_a_detector_with_its_detections(tmp_path, as_json, capsys):
    image = keras.Input((4, 4, 3), name="image")
    ends = [keras.layers.Conv2D(n, 2, strides=2, activation="sigmoid")(image) for n in (4, 2)]
    boxes, scores = (keras.layers.Reshape((4, -1))(x) for x in ends)
    qat = keras_qat.quantize_model(keras.Model(image, [boxes, scores]))
    keras_qat.calibrate(qat, small_images(), verbose=0)
    model, file, anchors = (str(tmp_path / name) for name in ("d.keras", "d.tflite", "a.npy"))
    qat.save(model)
    np.save(anchors, np.full((4, 4), 0.5))
    options = {"max_detections": 7, "score_threshold": 0.25, "iou_threshold": 0.75}
    options |= {"scales": (10.0, 10.0, 5.0, 5.0), "num_classes": 1}
    texts = "--max-detections 7 --score-threshold 1/4 --iou-threshold 0.75 --num-classes 1"
    arguments = ("--anchors", anchors, *texts.split(), "--scales", 10, 10, 5, 5)
    assert as_json("export", model, "-o", file, *arguments)[0] == 0
    detection = keras_qat.DetectionPostProcess(np.load(anchors), **options)
    keras_qat.export_litert(qat, tmp_path / "own.tflite", detection=detection)
    with open(file, "rb") as written:
        assert written.read() == (tmp_path / "own.tflite").read_bytes()
    assert as_json("verify", model, file, "--data", ARRAYS)[1]["not_run"]
    capsys.readouterr()
    for wrong, message in (
        (("--max-detections", "7"), "--max-detections without --anchors"),
        (("--anchors", f"{anchors}.npy"), "The file of anchors cannot be read"),
        (("--anchors", model), "The anchors must be an array"),
    ):
        assert main(["export", model, "-o", file, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_export_refuses_models_that_are_not_quantized(files, tmp_path, capsys):
    output = tmp_path / "file.tflite"
    for model in ("float.keras", "file.tflite"):
        assert main(["export", files[model], "-o", str(output)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert not output.exists()


def test_verify_proves_and_refutes(files, tmp_path, as_json, capsys):
    arguments = ("verify", files["qat.keras"], files["file.tflite"], "--data", files["data.npz"])
    code, found = as_json(*arguments)
    assert code == 0 and found["exact"] is True and found["samples"] == 20
    assert main([*arguments, "--kernels", "default", "--samples", "7"]) == 0
    text = capsys.readouterr().out
    assert "EXACT: default kernels: 0 of " in text and " on 7 of 7," in text
    assert as_json(*arguments, "--kernels", "reference")[0] == 1  # they prove nothing
    model = small_network()
    other = keras_qat.quantize_model(model)
    keras_qat.calibrate(other, small_images() * 2, verbose=0)
    keras_qat.export_litert(other, tmp_path / "other.tflite")
    code, found = as_json(arguments[0], arguments[1], tmp_path / "other.tflite", *arguments[3:])
    assert code == 1 and found["exact"] is False


def test_inspect_shows_the_report_of_the_library(files, as_json):
    code, found = as_json("inspect", files["file.tflite"], "--fully-integer")
    report = keras_qat.inspect_litert(files["file.tflite"])
    assert code == 0 and found == json.loads(json.dumps(report.to_dict()))
    assert as_json("inspect", files["float.keras"])[0] == 2


def test_inspect_fully_integer_fails_on_float_files(files, tmp_path, as_json):
    path = tmp_path / "float.tflite"
    keras_qat.export_litert(quantized_small_network(), path, inference_input_type="float32")
    assert as_json("inspect", path)[0] == 0
    assert as_json("inspect", path, "--fully-integer")[0] == 1


@pytest.mark.slow
def test_demo_runs_all_steps(tmp_path, as_json):
    pytest.importorskip("sklearn")
    code, found = as_json("demo", "-o", tmp_path)
    assert code == 0 and found["verify"]["exact"] is True
    assert all(row["accuracy"] > 0.85 for row in found["compare"]["models"])
    assert (tmp_path / "digits.tflite").stat().st_size == found["export"]["size"]


def test_demo_names_the_extra_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # makes its import fail
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 2
    assert "pip install 'keras-qat[cli]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
