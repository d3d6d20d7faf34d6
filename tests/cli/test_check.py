"""The command `check`, and the options shared with `quantize`. The oracle is the library."""

import argparse
import inspect
import json
from typing import Any

import keras
import pytest

import keras_qat
from keras_qat_cli.arguments import (
    add_conversion,
    add_range_rules,
    conversion_options,
    range_options,
)
from keras_qat_cli.main import main
from tests.models import network, small_network
from tests.quick import some_quick


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
    add_range_rules(parser)
    parsed = parser.parse_args([])
    ours = conversion_options(parsed) | range_options(parsed)
    library = inspect.signature(keras_qat.quantize_model).parameters
    own = {"model", "calibration_data", "quant_delay", "budget"}  # of `quantize` alone
    assert ours.keys() == library.keys() - own
    defaults = {name: library[name].default for name in ours}
    assert {name: value or None for name, value in ours.items()} == {
        name: value or None for name, value in defaults.items()
    }


@pytest.mark.parametrize(("arguments", "options"), CONVERSION)
def test_conversion_options_of_arguments(arguments, options):
    parser = argparse.ArgumentParser()
    add_conversion(parser)
    found = conversion_options(parser.parse_args(arguments))
    assert {name: found[name] for name in options} == options


@pytest.mark.parametrize(("arguments", "options"), some_quick(CONVERSION, 3, 6))
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
        (["--override", "ends_int8", "--override", "Dense=float"], "ends_int8 stands alone"),
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
    arguments = ("check", tmp_path / "model.keras", "--target", "reference")
    code, found = as_json(*arguments)
    assert code == 0 and found["findings"]  # about MEAN, which two runtimes round differently
    assert as_json(*arguments, "--strict")[0] == 1
    assert as_json("check", files["float.keras"], "--strict")[0] == 0
