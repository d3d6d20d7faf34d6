"""The examples run, and their printed results are correct."""

import pathlib
import re
import subprocess
import sys

import keras
import pytest

from tests.test_docs import load

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run_example(name, *arguments):
    """Runs an example in a separate process. Returns its output."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


@pytest.mark.slow
def test_mnist_example_has_equal_accuracy_in_keras_and_the_file(tmp_path):
    text = run_example("mnist_quant_delay.py", "--epochs", 2, "--output", tmp_path)
    rows = re.findall(r"\| (.+?) +\| +(\d+) \| +([\d.]+) \|", text)
    correct = {name: int(count) for name, count, _ in rows}
    assert correct["epoch 2: Keras, uint8"] == correct[".tflite"] > 324
    assert correct["epoch 1: Keras, float"] > 288
    found = re.search(r"Keras (\d+) = \.tflite (\d+)\n", text)
    assert found and int(found[1]) == int(found[2]) == correct[".tflite"]
    assert "Types in the file: int32, uint8\n" in text
    assert re.search(r"Integers that differ: 0 of [\d,]{7,}\n", text)
    assert (tmp_path / "mnist_uint8.tflite").stat().st_size > 10_000


def test_mnist_example_explains_a_failed_download(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script

    def refuse():
        raise OSError("no network")

    example = load(EXAMPLES / "mnist_quant_delay.py")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", refuse)
    with pytest.raises(SystemExit, match=r"MNIST cannot be downloaded \(no network\).*--mnist"):
        example.load_pixels(is_mnist=True)


@pytest.mark.slow
def test_digits_demo_exports_an_exact_file(tmp_path):
    text = run_example("digits_demo.py", "--output", tmp_path)
    row = r"LiteRT file, default kernels +\| +([\d.]+) \| +0 of [\d,]+ \|"
    found = re.search(row, text)
    in_keras = re.search(r"Keras, quantized, trained +\| +([\d.]+) \|", text)
    assert found and in_keras and found[1] == in_keras[1] and float(found[1]) > 0.9


@pytest.mark.slow
def test_several_devices_example_trains(tmp_path):
    text = run_example("several_devices.py", "--output", tmp_path)
    found = re.search(r"^2 devices, .*: accuracy ([\d.]+)$", text, re.MULTILINE)
    assert found and float(found[1]) > 0.9
