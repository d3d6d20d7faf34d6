"""The commands. The oracles are the library, Keras and LiteRT."""

import argparse
import inspect
import json
import sys
import tempfile
from typing import Any

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QuantizedModel
from keras_qat_cli.arguments import add_conversion, conversion_options
from keras_qat_cli.main import main
from tests.models import (
    labels,
    linear,
    network,
    quantized_small_network,
    small_images,
    small_network,
)

ARRAYS = "tests.cli.sources:arrays"


@pytest.fixture
def as_json(capsys):
    """Runs a command with `--json`. Returns the exit code and the results."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_check_shows_the_report_of_the_library(files, unsupported, as_json, capsys):
    code, found = as_json("check", files["float.keras"])
    assert code == 0, found
    assert found == json.loads(json.dumps(keras_qat.check(small_network()).to_dict()))
    assert main(["check", files["float.keras"], "--data", files["data.npz"]]) == 0
    text = capsys.readouterr().out
    assert "observed (" in text and "\nOK: " in text
    code, found = as_json("check", unsupported)
    assert code == 1 and not found["ok"]


WITHOUT_FOLDING = [name for name in keras_qat.DEFAULT_REWRITES if name != "fold_batch_norms"]
CONVERSION = [
    (["--scheme", "uint8"], {"scheme": "uint8"}),
    (["--rewrites", *WITHOUT_FOLDING], {"rewrites": WITHOUT_FOLDING}),
    (["--activations", "lookup"], {"activations": "lookup"}),
    (["--override", "Dense=float", "--override", "Conv2D=int8_per_tensor"],
     {"overrides": {"Dense": None, "Conv2D": "int8_per_tensor"}}),
    (["--skip-layer", "relu", "--skip-layer", "bn"], {"skip_layers": ["relu", "bn"]}),
    (["--default-range", "-1", "6"], {"default_ranges_stats": (-1.0, 6.0)}),
    (["--input-stats", "{input}=0,255"], {"quantized_input_stats": {"{input}": (0, 255)}}),
    (["--input-stats", "{input}=0,127,int8"],
     {"quantized_input_stats": {"{input}": (0, 127, "int8")}}),
]  # fmt: skip


def test_conversion_options_are_those_of_the_library():
    parser = argparse.ArgumentParser()
    add_conversion(parser)
    ours = conversion_options(parser.parse_args([]))
    library = inspect.signature(keras_qat.quantize_model).parameters
    # The number of training steps in float is an option about training.
    assert ours.keys() == library.keys() - {"model", "calibration_data", "quant_delay"}
    defaults = {name: library[name].default for name in ours}
    assert {name: value or None for name, value in ours.items()} == {
        name: value or None for name, value in defaults.items()
    }


@pytest.mark.parametrize(("arguments", "options"), CONVERSION)
def test_check_and_quantize_take_the_options_of_the_library(
    arguments, options, files, tmp_path, as_json
):
    model = small_network()
    name = model.inputs[0].name
    arguments = [text.replace("{input}", name) for text in arguments]
    given: Any = options
    if "quantized_input_stats" in options:
        given = {"quantized_input_stats": {name: options["quantized_input_stats"]["{input}"]}}
    code, found = as_json("check", files["float.keras"], *arguments)
    assert (code, found) == (0, json.loads(json.dumps(keras_qat.check(model, **given).to_dict())))
    output, data = tmp_path / "qat.keras", ["--data", files["data.npz"]]
    assert as_json("quantize", files["float.keras"], "-o", output, *data, *arguments)[0] == 0
    made = keras_qat.quantize_model(model, **given)
    kinds = [(type(layer), layer.get_config().get("scheme")) for layer in made.layers]
    loaded = keras.saving.load_model(output)
    assert [(type(layer), layer.get_config().get("scheme")) for layer in loaded.layers] == kinds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--override", "head"], "layer=scheme"),
        (["--input-stats", "image=0"], "input=mean,std"),
        (["--activations", "melt"], "Unknown policy"),
        (["--rewrites", "melt"], "Unknown rewrite"),
        (["--override", "melt=float"], "matches no layer"),
    ],
)
def test_check_names_the_wrong_option(arguments, message, files, capsys):
    assert main(["check", files["float.keras"], *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".SVG", b"<?xml")])
def test_check_plots_the_ranges(files, tmp_path, ending, start):
    picture = tmp_path / f"ranges{ending}"
    data = ["--data", files["data.npz"]]
    assert main(["check", files["float.keras"], *data, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "message"),
    [("ranges.txt", "has the wrong ending"), ("none/ranges.png", "cannot be written")],
)
def test_check_explains_why_it_cannot_plot(files, tmp_path, name, message, capsys):
    data = ["--data", files["data.npz"]]
    assert main(["check", files["float.keras"], *data, "--plot", str(tmp_path / name)]) == 2
    streams = capsys.readouterr()
    assert message in streams.err and streams.out == ""
    assert main(["check", files["float.keras"], "--plot", str(tmp_path / "ranges.png")]) == 2
    assert "no ranges to draw" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_check_strict_fails_on_warnings(files, tmp_path, as_json):
    network().save(tmp_path / "model.keras")
    code, found = as_json("check", tmp_path / "model.keras")
    assert code == 0 and found["findings"]  # about MEAN, which two runtimes round differently
    assert as_json("check", tmp_path / "model.keras", "--strict")[0] == 1
    assert as_json("check", files["float.keras"], "--strict")[0] == 0


def test_quantize_calibrates(files, tmp_path, as_json):
    output = tmp_path / "qat.keras"
    code, found = as_json(
        "quantize", files["float.keras"], "-o", output, "--data", files["data.npz"], "--samples", 16
    )
    assert code == 0 and found["history"] == {} and found["file"] == str(output)
    assert any(line.startswith("fold_batch_norms") for line in found["rewrites"])
    assert list(tmp_path.iterdir()) == [output]
    loaded = keras.saving.load_model(output)
    expected = quantized_small_network().predict(small_images(), verbose=0)
    assert (loaded.predict(small_images(), verbose=0) == expected).all()


@pytest.mark.parametrize("source", ["arrays", "batches", "dataset"])
def test_quantize_trains(source, files, tmp_path, as_json):
    data = f"tests.cli.sources:{source}"
    code, found = as_json(
        *("quantize", files["float.keras"], "-o", tmp_path / "qat.keras", "--data", data),
        *("--train-data", data, "--validation-data", files["data.npz"], "--epochs", 2),
        *("--learning-rate", "1/100", "--batch-size", 8),
    )
    assert code == 0, found
    assert found["history"].keys() == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert len(found["history"]["loss"]) == 2
    loaded = keras.saving.load_model(tmp_path / "qat.keras")
    loss, accuracy = loaded.evaluate(small_images(20), labels(20), verbose=0)
    assert accuracy == pytest.approx(found["history"]["val_accuracy"][-1])
    assert loss == pytest.approx(found["history"]["val_loss"][-1], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.h5"], "ends in .keras"),
        (["-o", "no/such/folder/model.keras"], "a folder that exists"),
        (["--scheme", "int3"], "int3"),
        (["--train-data", "tests.cli.sources:inputs_alone"], "no targets"),
        (["--train-data", "tests.cli.sources:generator"], "used up after one epoch"),
        (["--train-data", "tests.cli.sources:wrong_shape"], "wrong shape"),
        (["--train-data", ARRAYS, "--loss", "mes"], "no such loss"),
        (["--train-data", ARRAYS, "--loss", "mse", "--from-logits"], "no logits"),
        (["--train-data", ARRAYS, "--loss", "categorical_crossentropy"], "cannot train"),
        (["--train-data", ARRAYS, "--from-logits"], "needs --loss"),
        (["--validation-data", ARRAYS], "no training to validate"),
        (["--train-data", "tests.cli.sources:not_finite_later", "--batch-size", "8"], "diverged"),
    ],
)
def test_quantize_refuses(arguments, message, files, tmp_path, capsys):
    given = {"-o": str(tmp_path / "qat.keras"), "--data": files["data.npz"]}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=False))
    flags = ["--from-logits"] if "--from-logits" in arguments else []
    given.pop("--from-logits", None)
    flat = [part for pair in given.items() for part in pair]
    assert main(["quantize", files["float.keras"], *flat, *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_quantize_shortens_errors_of_keras(files, tmp_path, capsys):
    np.savez(tmp_path / "wrong.npz", x=small_images(20), y=labels(20) + 3)
    arguments = ["quantize", files["float.keras"], "-o", str(tmp_path / "qat.keras")]
    data = ["--data", files["data.npz"], "--train-data", str(tmp_path / "wrong.npz")]
    assert main([*arguments, *data]) == 2
    text = " ".join(capsys.readouterr().err.split())  # the text is wrapped
    assert "Received a label value of 7" in text and "File " not in text and "Op:" not in text


def test_quantize_tests_first_whether_it_can_write(files, monkeypatch, capsys):
    def refuse(**options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    arguments = ["quantize", files["float.keras"], "-o", "qat.keras"]
    assert main([*arguments, "--data", files["data.npz"]]) == 2
    text = capsys.readouterr().err
    assert "cannot be saved there: Read-only file system" in text and "calibrate" not in text


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
    some = (*data, "--samples", 18, "--runs", 1, "--kernels", "reference")
    found = as_json("compare", names[1], names[2], *some)[1]
    assert found["samples"] == 18 and found["largest_difference"] == 0
    predicted = keras.saving.load_model(names[1]).predict(small_images(20), 5, verbose=0)[:18]
    accuracy = float((predicted.argmax(-1) == labels(18)).mean())
    assert [row["accuracy"] for row in found["models"]] == [accuracy] * 2


def test_quantize_needs_a_loss_to_train(files, tmp_path, capsys):
    model = small_network()
    model.save(tmp_path / "model.keras")
    arguments = ["quantize", str(tmp_path / "model.keras"), "-o", str(tmp_path / "qat.keras")]
    data = ["--data", files["data.npz"], "--train-data", files["data.npz"]]
    assert main([*arguments, *data]) == 2
    assert "saved without a loss" in capsys.readouterr().err
    assert main([*arguments, *data, "--loss", "sparse_categorical_crossentropy"]) == 0


def test_quantize_takes_a_loss_of_logits(files, tmp_path, as_json):
    image = keras.Input((4, 4, 3), name="image")
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(image))
    keras.Model(image, logits).save(tmp_path / "model.keras")
    data = ("--data", ARRAYS, "--train-data", ARRAYS, "--validation-data", ARRAYS)
    loss = ("--loss", "sparse_categorical_crossentropy", "--from-logits")
    arguments = (tmp_path / "model.keras", "-o", tmp_path / "qat.keras")
    code, found = as_json("quantize", *arguments, *data, *loss)
    predicted = keras.saving.load_model(tmp_path / "qat.keras").predict(small_images(20), verbose=0)
    of_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = float(of_logits(labels(20), predicted))
    assert code == 0 and found["history"]["val_loss"] == [pytest.approx(expected, rel=1e-5)]


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
    assert main([*arguments, "--kernels", "reference", "--samples", "7"]) == 0
    text = capsys.readouterr().out
    assert "EXACT: reference kernels: 0 of " in text and " on 7 of 7," in text
    assert as_json(*arguments, "--kernels", "default")[0] == 1  # they prove nothing
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


def test_compare_has_the_results_of_two_models(files, as_json, capsys):
    pair = ("compare", files["float.keras"], files["file.tflite"])
    code, found = as_json(*pair, "--data", files["data.npz"], "--kernels", "reference", "--runs", 2)
    ours, theirs = (
        model.predict(small_images(20), verbose=0)
        for model in (small_network(), quantized_small_network())
    )
    assert code == 0 and found["samples"] == 20
    accuracies = [float((x.argmax(-1) == labels(20)).mean()) for x in (ours, theirs)]
    assert [row["accuracy"] for row in found["models"]] == accuracies
    assert found["agreement"] == float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    assert found["largest_difference"] == pytest.approx(np.abs(ours - theirs).max(), rel=1e-4)
    assert [row["kind"] for row in found["models"]] == ["Keras", "LiteRT, reference kernels"]
    assert all(row["size"] > 0 and row["latency_ms"] > 0 for row in found["models"])
    assert main([*pair, "--data", files["data.npz"], "--runs", "1"]) == 0
    text = capsys.readouterr().out
    assert "accuracy" in text and "They agree on " in text


def test_compare_of_a_quantized_model_and_its_file_agrees(files, as_json):
    pair = ("compare", files["qat.keras"], files["file.tflite"])
    code, found = as_json(*pair, "--data", files["data.npz"], "--kernels", "reference", "--runs", 1)
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
    data = ("--data", tmp_path / "pixels.npy", "--kernels", "reference", "--runs", 1)
    assert as_json(*pair, *data)[1]["largest_difference"] == 0


def test_compare_refuses_models_of_other_outputs(files, tmp_path, capsys):
    model = small_network()
    keras.Model(model.inputs, model.layers[0].output).save(tmp_path / "other.keras")
    pair = ["compare", files["float.keras"], str(tmp_path / "other.keras")]
    assert main([*pair, "--data", files["data.npz"]]) == 2
    assert "different outputs" in capsys.readouterr().err


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


def test_quantize_leaves_no_file_if_saving_fails(files, tmp_path, monkeypatch, capsys):
    def fail(self, path):
        with open(path, "w") as file:
            file.write("half a model")
        raise OSError("No space left on device")

    monkeypatch.setattr(QuantizedModel, "save", fail)
    arguments = ["quantize", files["float.keras"], "-o", str(tmp_path / "qat.keras")]
    assert main([*arguments, "--data", files["data.npz"]]) == 2
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
