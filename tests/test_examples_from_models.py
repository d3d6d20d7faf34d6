"""The examples that write, transfer or load a network run, and their results are correct."""

import pathlib
import re
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from tests.test_docs import load
from tests.test_examples import EXAMPLES, run_example

BUNDLED = EXAMPLES / "data" / "digits_keras2.h5"
APPLICATION = keras.applications.MobileNetV2


def scores(text):
    """Returns the table of an example. Checks that Keras and the file are equal in it."""
    rows = {name: float(score) for name, score in re.findall(r"\| (.+?) +\| +([\d.]+) \|", text)}
    assert re.search(r"\nIntegers that differ: 0 of [\d,]{5,}\n", text)
    return rows


def loaded(name, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    return load(EXAMPLES / name)


def refuse(*args, **kwargs):
    raise OSError("no network")


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of images for each of two classes, ten bright images and ten dark ones."""
    generator = np.random.default_rng(0)
    for name, darkest in (("bright", 128), ("dark", 0)):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = generator.integers(darkest, darkest + 128, (40, 50, 3), "uint8")
            keras.utils.save_img(tmp_path / name / f"{number}.png", pixels, scale=False)
    return tmp_path


@pytest.mark.slow
def test_resnet_example_has_an_operator_per_block(tmp_path):
    text = run_example("resnet_v1.py", "--epochs", 3, "--output", tmp_path)
    rows = scores(text)
    assert rows["Keras, int8"] == rows[".tflite"] > 0.9
    assert rows["Keras, float twin"] > 0.9
    operators = "1 QUANTIZE, 9 CONV_2D, 3 ADD, 1 MEAN, 1 FULLY_CONNECTED, 1 SOFTMAX\n"
    assert operators in text
    report = keras_qat.inspect_litert(tmp_path / "resnet8_v1.tflite")
    assert report.is_fully_integer and report.inputs[0].dtype == "uint8"


@pytest.mark.slow
def test_resnet_example_takes_pixels_with_augmentation(tmp_path, monkeypatch, capsys):
    example = loaded("resnet_v1.py", monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), "uint8")
    labels = np.arange(64)[:, None] % 10  # in the shape of Keras's data
    monkeypatch.setattr(
        keras.datasets.cifar10, "load_data", lambda: ((pixels, labels), (pixels, labels))
    )
    options = ["--cifar10", "--depth", "14", "--epochs", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["resnet_v1.py", *options])
    example.main()
    text = capsys.readouterr().out
    rows = scores(text)
    assert rows["Keras, int8"] == rows[".tflite"]
    assert "1 QUANTIZE, 15 CONV_2D, 6 ADD, 1 MEAN, 1 FULLY_CONNECTED, 1 SOFTMAX\n" in text


def test_resnet_example_explains_a_failed_download(monkeypatch):
    example = loaded("resnet_v1.py", monkeypatch)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", refuse)
    with pytest.raises(SystemExit, match=r"CIFAR-10 cannot .* \(no network\).*--cifar10"):
        example.load_pixels(is_cifar10=True)


def test_resnet_example_refuses_an_invalid_depth(monkeypatch, capsys):
    example = loaded("resnet_v1.py", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["resnet_v1.py", "--depth", "10"])
    with pytest.raises(SystemExit):
        example.main()
    assert "--depth 10 is not 6n + 2" in capsys.readouterr().err


@pytest.mark.slow
def test_transfer_example_exports_an_exact_file(tmp_path):
    text = run_example("transfer_learning.py", "--epochs", 6, "--output", tmp_path)
    rows = scores(text)
    trained = rows["transfer: Keras, int8, trained"]
    assert trained == rows["transfer: .tflite"] > 0.6
    assert "\n58 layers are 24 in the clone\n" in text
    assert "\nHead: 15 images, 6 epochs, 2 of 97 weights\n" in text  # the base model is frozen
    report = keras_qat.inspect_litert(tmp_path / "transfer.tflite")
    assert report.is_fully_integer and report.inputs[0].dtype == "uint8"


def test_transfer_example_takes_a_folder_of_classes(monkeypatch, folder):
    example = loaded("transfer_learning.py", monkeypatch)
    asked = []

    def without_weights(*args, weights, **kwargs):
        asked.append(weights)
        return APPLICATION(*args, weights=None, **kwargs)

    monkeypatch.setattr(keras.applications, "MobileNetV2", without_weights)
    base, (x, y), (x_test, y_test) = example.pretrained_on_imagenet(folder)
    assert asked == ["imagenet"] and base.output_shape == (None, 1280)
    assert x.dtype == "uint8" and x.shape == (16, 96, 96, 3) and x_test.shape == (4, 96, 96, 3)
    for pixels, labels in ((x, y), (x_test, y_test)):
        assert np.array_equal(pixels.mean(axis=(1, 2, 3)) < 128, labels == 1)
    assert sorted(y_test) == [0, 0, 1, 1]


def test_transfer_example_explains_missing_data(monkeypatch, tmp_path):
    example = loaded("transfer_learning.py", monkeypatch)
    monkeypatch.setattr(keras.applications, "MobileNetV2", refuse)
    with pytest.raises(SystemExit, match=r"MobileNetV2 cannot .* \(no network\).*--imagenet"):
        example.pretrained_on_imagenet(tmp_path)
    monkeypatch.setattr(example, "build_base", lambda *args, **kwargs: None)
    with pytest.raises(SystemExit, match="has to have a folder with some images for each class"):
        example.pretrained_on_imagenet(tmp_path)
    for number in range(9):
        (tmp_path / f"class{min(number, 1)}").mkdir(exist_ok=True)  # the first class has one image
        pixels = np.full((8, 8, 3), number, "uint8")
        keras.utils.save_img(tmp_path / f"class{min(number, 1)}/{number}.png", pixels, scale=False)
    with pytest.raises(SystemExit, match="some images for each class: The least populated"):
        example.pretrained_on_imagenet(tmp_path)


@pytest.mark.slow
def test_keras_2_example_exports_an_exact_file(tmp_path):
    text = run_example("old_keras2_model.py", "--output", tmp_path)
    rows = scores(text)
    assert rows["Keras, int8, trained"] == rows[".tflite"] > 0.95
    assert rows["Keras, float"] > 0.95
    assert "\n    Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 1}\n" in text
    assert keras_qat.inspect_litert(tmp_path / "digits_keras2_int8.tflite").is_fully_integer


@pytest.mark.slow
def test_keras_2_example_takes_a_model_and_data(tmp_path):
    example = subprocess.run(
        [sys.executable, EXAMPLES / "old_keras2_model.py", "--model", BUNDLED],
        capture_output=True,
        text=True,
    )
    assert example.returncode == 2 and "--model and --data go together" in example.stderr
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    model.set_weights([np.eye(4, 2) * 4, np.zeros(2)])
    x = np.random.default_rng(0).random((300, 4), "float32")
    labels = np.argmax(x[:, :2], axis=-1)
    one_hot = np.eye(2, dtype="float32")[labels]
    model.compile(loss="categorical_crossentropy")
    model.save(tmp_path / "mine.keras")
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=one_hot, x_test=x, y_test=one_hot)
    options = ["--model", tmp_path / "mine.keras", "--data", tmp_path / "mine.npz"]
    text = run_example("old_keras2_model.py", *options, "--output", tmp_path)
    rows = scores(text)
    assert rows["Keras, float"] == 1.0
    assert rows["Keras, int8, trained"] == rows[".tflite"] > 0.95
    assert "\n    nothing, it loads the file\n" in text


def test_keras_2_example_has_a_file_of_keras_2(monkeypatch):
    with h5py.File(BUNDLED) as file:
        assert str(file.attrs["keras_version"]).startswith("2.")
    assert BUNDLED.stat().st_size < 150_000
    said = loaded("old_keras2_model.py", monkeypatch).what_keras_says(BUNDLED)
    assert said == "Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 1}"


@pytest.mark.slow
def test_keras_2_example_file_is_written_by_its_script(tmp_path):
    pytest.importorskip("tf_keras")
    path = tmp_path / "digits.h5"
    code = (
        f"import pathlib, sys; sys.path.insert(0, {str(BUNDLED.parent)!r}); "
        f"import make_digits_keras2 as made; made.PATH = pathlib.Path({str(path)!r}); made.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    accuracy = re.search(r"^Keras 2\..*: accuracy ([\d.]+), ", result.stdout)
    assert accuracy and float(accuracy[1]) > 0.9
    models = [keras_qat.load_model(each) for each in (path, BUNDLED)]
    assert models[0].get_config() == models[1].get_config()


@pytest.mark.parametrize("column", [False, True])
def test_keras_2_example_takes_labels_as_numbers_or_one_hot(monkeypatch, column):
    example = loaded("old_keras2_model.py", monkeypatch)

    class Identity:
        def predict(self, x, **kwargs):
            return x

    x = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.9, 0.0, 0.1]])
    labels = np.array([1, 0, 1, 0])
    given = labels[:, None] if column else labels
    assert example.accuracy(Identity(), (x, given)) == 0.75
    assert example.accuracy(Identity(), (x, np.eye(3)[labels])) == 0.75


def test_keras_2_example_explains_wrong_models_and_data(monkeypatch, tmp_path):
    example = loaded("old_keras2_model.py", monkeypatch)
    with pytest.raises(SystemExit, match=r"absent\.h5"):
        example.load_classifier(tmp_path / "absent.h5")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(tmp_path / "one.keras")
    with pytest.raises(SystemExit, match="one output, with a score for each class"):
        example.load_classifier(tmp_path / "one.keras")
    np.savez(tmp_path / "part.npz", x_train=np.zeros(3), y_train=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    for path in (tmp_path / "part.npz", tmp_path / "text.npz", pathlib.Path("absent.npz")):
        with pytest.raises(SystemExit, match=f"{path.name} cannot be read .*x_train, y_train"):
            example.load_data(path)
