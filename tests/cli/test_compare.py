"""The command `compare`. The oracles are Keras and numbers worked out by hand."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat_cli.main import main
from tests.models import labels, linear, quantized_small_network, small_images, small_network


def test_compare_has_the_results_of_two_models(files, as_json, capsys):
    pair = ("compare", files["float.keras"], files["file.tflite"])
    code, found = as_json(*pair, "--data", files["data.npz"], "--kernels", "default", "--runs", 2)
    ours, theirs = (
        model.predict(small_images(20), verbose=0)
        for model in (small_network(), quantized_small_network())
    )
    assert code == 0 and found["samples"] == 20
    accuracies = [float((x.argmax(-1) == labels(20)).mean()) for x in (ours, theirs)]
    assert [row["accuracy"] for row in found["models"]] == accuracies
    assert found["agreement"] == float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    assert found["largest_difference"] == pytest.approx(np.abs(ours - theirs).max(), rel=1e-4)
    assert [row["kind"] for row in found["models"]] == ["Keras", "LiteRT, default kernels"]
    assert all(row["size"] > 0 and row["latency_ms"] > 0 for row in found["models"])
    assert main([*pair, "--data", files["data.npz"], "--runs", "1"]) == 0
    text = capsys.readouterr().out
    assert "accuracy" in text and "They agree on " in text


def test_compare_of_a_quantized_model_and_its_file_agrees(files, as_json):
    pair = ("compare", files["qat.keras"], files["file.tflite"])
    code, found = as_json(*pair, "--data", files["data.npz"], "--kernels", "default", "--runs", 1)
    assert found["agreement"] == 1 and found["largest_difference"] == 0
    assert found["models"][0]["kind"] == "Keras, quantized"


@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_compare_has_the_error_of_regression_values(shape, tmp_path, as_json, capsys):
    """The dense layer adds its four inputs."""
    linear(units=1).save(tmp_path / "one.keras")
    x = np.random.default_rng(0).random((30, 4), "float32")
    y = x.sum(-1) + np.linspace(0, 2, 30)  # 1 more on average
    np.savez(tmp_path / "data.npz", x=x, y=y.reshape(shape))
    pair = ("compare", *[tmp_path / "one.keras"] * 2, "--data", tmp_path / "data.npz", "--runs", 1)
    code, found = as_json(*pair)
    assert code == 0 and found["agreement"] is None
    for row in found["models"]:
        assert row["accuracy"] is None
        assert row["mean_absolute_error"] == pytest.approx(1, rel=1e-5)
    assert main([*map(str, pair)]) == 0
    assert "mean error" in (text := capsys.readouterr().out) and "agree" not in text
    assert main([*map(str, pair), "--min-agreement", "0.5"]) == 2
    assert "agreement is not defined" in capsys.readouterr().err


def test_compare_has_the_error_of_several_regression_values(tmp_path, as_json):
    linear(units=2).save(tmp_path / "two.keras")
    x = np.random.default_rng(0).random((30, 4), "float32")
    np.savez(tmp_path / "data.npz", x=x, y=x.sum(-1, keepdims=True) + [1, 4])
    pair = ("compare", *[tmp_path / "two.keras"] * 2, "--data", tmp_path / "data.npz", "--runs", 1)
    for row in as_json(*pair)[1]["models"]:
        assert row["mean_absolute_error"] == pytest.approx(2.5, rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (labels(20) + 1, "not the classes of the model"),
        (labels(20) - 1, "not the classes of the model"),
        (labels(20) + 0.5, "not the classes of the model"),
        (labels(20).astype(str), "not finite numbers"),
        (np.full(20, np.nan), "not finite numbers"),
        (np.zeros((20, 2)), "do not fit the outputs"),
    ],
)
def test_compare_refuses_targets_that_are_not_classes(targets, message, files, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=small_images(20), y=targets)
    pair = ["compare", files["float.keras"], files["file.tflite"]]
    assert main([*pair, "--data", str(tmp_path / "data.npz"), "--runs", "1"]) == 2
    assert message in capsys.readouterr().err


def test_compare_takes_one_hot_targets(files, tmp_path, as_json):
    np.savez(tmp_path / "data.npz", x=small_images(20), y=np.eye(5)[labels(20)])
    pair = ("compare", files["float.keras"], files["file.tflite"], "--runs", 1)
    found, wanted = (
        as_json(*pair, "--data", data)[1] for data in (tmp_path / "data.npz", files["data.npz"])
    )
    for one, other in zip(found["models"], wanted["models"], strict=True):
        assert one["accuracy"] == other["accuracy"] > 0


def test_compare_passes_inputs_in_the_structure_of_the_model(tmp_path, as_json, capsys):
    a, b = keras.Input((4,), name="b"), keras.Input((2,), name="a")
    model = keras.Model({"b": a, "a": b}, keras.layers.Concatenate()([a, b]))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", a=np.ones((3, 2)), b=np.zeros((3, 4)))
    pair = ["compare", *[str(tmp_path / "model.keras")] * 2, "--runs", "1"]
    assert main([*pair, "--data", str(tmp_path / "data.npz")]) == 0
    assert "structure" not in capsys.readouterr().err


def test_compare_min_agreement_is_a_threshold(files, tmp_path, as_json):
    other = small_network(seed=5)
    other.save(tmp_path / "other.keras")
    pair = ("compare", files["float.keras"], tmp_path / "other.keras")
    data = ("--data", "tests.cli.sources:inputs_alone", "--runs", 1)
    code, found = as_json(*pair, *data, "--min-agreement", "0.99")
    assert code == 1 and found["agreement"] < 0.99
    assert found["models"][0]["accuracy"] is None
    assert as_json(*pair, *data)[0] == 0


def test_compare_takes_pixels_as_real_values(tmp_path, as_json):
    image = keras.Input((4, 4, 3), name="image")
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), "uint8")
    np.save(tmp_path / "pixels.npy", pixels)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(
        qat, pixels / np.float32(2), verbose=0
    )  # so that uint8 does not mean pixels
    keras_qat.export_litert(qat, tmp_path / "file.tflite", inference_input_type="uint8")
    qat.save(tmp_path / "qat.keras")
    pair = ("compare", tmp_path / "qat.keras", tmp_path / "file.tflite")
    data = ("--data", tmp_path / "pixels.npy", "--kernels", "default", "--runs", 1)
    assert as_json(*pair, *data)[1]["largest_difference"] == 0


def test_compare_refuses_models_of_other_outputs(files, tmp_path, capsys):
    model = small_network()
    keras.Model(model.inputs, model.layers[0].output).save(tmp_path / "other.keras")
    pair = ["compare", files["float.keras"], str(tmp_path / "other.keras")]
    assert main([*pair, "--data", files["data.npz"]]) == 2
    assert "different outputs" in capsys.readouterr().err
