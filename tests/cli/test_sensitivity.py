"""The command `sensitivity`. The oracle is the library."""

import json

import keras
import numpy as np

import keras_qat
from keras_qat_cli.main import main
from tests.models import labels, small_images, small_network


def test_sensitivity_command_shows_the_report_of_the_library(files, tmp_path, as_json):
    table, picture, kept = tmp_path / "a.csv", tmp_path / "a.png", tmp_path / "a.jsonl"
    arguments = ["--data", files["data.npz"], "--scheme", "int4", "--wider", "int8"]
    written = ["--csv", table, "--plot", picture, "--resume", kept]
    code, found = as_json("sensitivity", files["float.keras"], *arguments, *written)
    options = {"scheme": "int4", "wider": "int8", "verbose": 0}
    report = keras_qat.sensitivity(small_network(), small_images(20), **options)
    assert (code, found) == (0, json.loads(json.dumps(report.to_dict())))
    assert table.read_text().splitlines()[1].startswith(f"{report.rows[0].layer},")
    assert picture.read_bytes().startswith(b"\x89PNG") and kept.exists()


def test_sensitivity_command_takes_quantized_models_and_metrics(files, as_json, capsys):
    arguments = ["--data", files["data.npz"], "--metric", "accuracy"]
    code, found = as_json("sensitivity", files["qat.keras"], *arguments)
    qat = keras.saving.load_model(files["qat.keras"])
    right = np.argmax(qat.predict(small_images(20), verbose=0), axis=1) == labels(20)
    assert code == 0 and found["quantized_metric"] == np.float32(right.mean())
    assert main(["sensitivity", files["qat.keras"], *arguments, "--plot", "a.txt"]) == 2
    assert "wrong ending" in capsys.readouterr().err
