"""The command `quantize`. The oracles are the library and Keras."""

import inspect
import json
import tempfile

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QuantizedModel
from keras_qat.quantizers.range_rules import Mse, Percentile
from keras_qat_cli.budget import budget_of
from keras_qat_cli.main import main, parser
from tests.models import labels, quantized_small_network, small_images, small_network
from tests.quick import some_quick

ARRAYS = "tests.cli.sources:arrays"


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


def test_quantize_takes_range_rules_methods_and_ends_in_int8(files, tmp_path, as_json):
    output = tmp_path / "qat.keras"
    rules = ("--range-rule", "percentile=99", "--weight-range-rule", "mse")
    widths = ("--scheme", "int4", "--override", "ends_int8", "--method", "bias_correction")
    data = ("--data", files["data.npz"])
    code, found = as_json("quantize", files["float.keras"], "-o", output, *data, *rules, *widths)
    assert code == 0, found
    loaded = keras.saving.load_model(output)
    kernels = [layer for layer in loaded.layers if hasattr(layer, "weight_range_rule")]
    assert loaded.range_rule == Percentile(99) and kernels[0].weight_range_rule == Mse()
    options = {"range_rule": Percentile(99), "weight_range_rule": "mse", "overrides": "ends_int8"}
    qat = keras_qat.quantize_model(small_network(), "int4", **options)
    keras_qat.calibrate(qat, small_images(20), method=["bias_correction"], verbose=0)
    expected = qat.predict(small_images(), verbose=0)
    assert (loaded.predict(small_images(), verbose=0) == expected).all()


def test_quantize_within_a_budget(files, tmp_path, as_json):
    pytest.importorskip("scipy")
    picture = tmp_path / "plan.png"
    budget = ("--budget-weights-bytes", 200, "--budget-schemes", "int4", "--budget-plot", picture)
    arguments = ("-o", tmp_path / "qat.keras", "--data", files["data.npz"], *budget)
    code, found = as_json("quantize", files["float.keras"], *arguments)
    assert code == 0, found
    expected = keras_qat.quantize_model(
        small_network(),
        budget=keras_qat.Budget(weights_bytes=200, schemes=["int4"]),
        calibration_data=small_images(20),
    ).budget_plan
    assert expected is not None
    assert found["budget_plan"] == json.loads(json.dumps(expected.to_dict()))
    assert "int4" in expected.overrides.values() and picture.read_bytes().startswith(b"\x89PNG")


def test_quantize_has_an_argument_for_each_of_the_budget():
    given = {"weights_bytes": 9, "flash_kib": 1.5, "schemes": ["int2"], "samples": 7}
    library = inspect.signature(keras_qat.Budget).parameters
    assert given.keys() == library.keys() - {"target"}  # that of the model
    arguments = ["--budget-weights-bytes", "9", "--budget-flash-kib", "3/2"]
    arguments += ["--budget-schemes", "int2", "--budget-samples", "7"]
    parsed = parser().parse_args(["quantize", "a.keras", "-o", "b", "--data", "c", *arguments])
    assert budget_of(parsed) == keras_qat.Budget(**given)


@pytest.mark.parametrize("source", some_quick(["arrays", "batches", "dataset"], 0))
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


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.h5"], "ends in .keras"),
        (["-o", "no/such/folder/model.keras"], "a folder that exists"),
        (["--scheme", "int3"], "int3"),
        (["--range-rule", "melt"], "Unknown range rule"),
        (["--range-rule", "mse=3"], "takes no number"),
        (["--weight-range-rule", "percentile=20"], "50 < percentile <= 100"),
        (["--method", "melt"], "Unknown method"),
        (["--budget-samples", "9"], "A budget needs a size"),
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
