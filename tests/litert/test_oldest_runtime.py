"""The oldest runtime of a file, against releases that were measured by loading files."""

import importlib.metadata
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.litert import Model, Operator, Quantization, Tensor, oldest_runtime, to_bytes
from keras_qat.litert.format.oldest_runtime import first_runtime
from keras_qat.litert.format.operators import declarations
from keras_qat.targets import get_target
from tests.litert import foreign

RELEASES = pathlib.Path(__file__).parents[2] / "docs" / "releases.json"


@pytest.mark.parametrize(
    "code, version, runtime",
    [  # loaded by hand: the release registers the version, and the release before does not
        ("CAST", 3, "TensorFlow Lite 2.8"),
        ("GELU", 2, "TensorFlow Lite 2.9"),
        ("CONV_2D", 6, "TensorFlow Lite 2.9"),
        ("CONV_2D", 7, "TensorFlow Lite 2.12"),
        ("DEPTHWISE_CONV_2D", 7, "TensorFlow Lite 2.13"),
        ("FULLY_CONNECTED", 10, "TensorFlow Lite 2.13"),
        ("FULLY_CONNECTED", 12, "TensorFlow Lite 2.17"),
        ("TRANSPOSE", 7, "LiteRT 1.2.0"),
        ("PAD", 5, "LiteRT 2.0.2"),
        ("SOFTMAX", 4, "LiteRT 2.1.6"),
        # older than the measured releases: runtime_version.cc
        ("CONV_2D", 3, "TensorFlow Lite 1.14"),
        ("QUANTIZE", 2, "TensorFlow Lite 1.15"),
        # not in that file, but registered by the oldest release that was measured
        ("LSTM", 4, "TensorFlow Lite 2.7"),
        ("RESHAPE", 2, None),
        ("CUSTOM(Mine)", 1, None),
        ("CUSTOM(TFLite_Detection_PostProcess)", 1, "TensorFlow Lite 1.10"),
        ("CUSTOM(TFLite_Detection_PostProcess)", 2, None),
    ],
)
def test_first_runtime_of_one_operator(code, version, runtime):
    assert first_runtime(code, version) == runtime


def test_releases_of_operators_agree_with_the_measured_ones():
    """The metadata `min_runtime_version` of a file comes from another table."""
    for code, declaration in declarations().items():
        for version, release in enumerate(declaration.releases, 1):
            name = first_runtime(code, version)
            if name is not None and name.startswith("TensorFlow Lite"):
                assert release.startswith(name.split()[-1] + "."), (code, version)


def dense(scales, dtype="int8", **options):
    grid = Quantization(np.full(1, 0.5, "float32"), np.zeros(1, "int64"))
    x, y = (Tensor(name, (1, size), "int8", grid) for name, size in (("x", 4), ("y", 2)))
    weights = Quantization(np.array(scales, "float32"), np.zeros(len(scales), "int64"))
    kernel = Tensor("kernel", (2, 4), dtype, weights, np.ones((2, 4), "int8"))
    return Operator("FULLY_CONNECTED", (x, kernel), (y,), 12, options)


@pytest.mark.parametrize(
    "operator, fixed",
    [
        (dense([0.1, 0.2]), "TensorFlow Lite 1.14"),  # version 4
        (dense([0.1, 0.2], keepNumDims=True), "TensorFlow Lite 2.0"),  # version 5
        (dense([0.1, 0.2], "int4"), "TensorFlow Lite 1.14"),
        (dense([0.1]), ""),  # the version of another tool has another reason
    ],
)
def test_oldest_runtime_lowers_dense_layers(operator, fixed):
    found = oldest_runtime([operator])
    assert (found.name, found.because) == ("TensorFlow Lite 2.17", ("FULLY_CONNECTED version 12",))
    assert found.fixed == fixed
    assert ("int8_per_tensor" in found.fix) == bool(fixed)


def test_oldest_runtime_after_the_change_is_that_of_the_other_operators():
    x, y = Tensor("x", (1, 8), "int8"), Tensor("y", (1, 8), "int8")
    assert oldest_runtime([dense([0.1, 0.2]), Operator("GELU", (x,), (y,), 2)]).fixed == (
        "TensorFlow Lite 2.9"
    )
    newer = oldest_runtime([dense([0.1, 0.2]), Operator("SOFTMAX", (x,), (y,), 4)])
    assert (newer.name, newer.because, newer.fix) == ("LiteRT 2.1.6", ("SOFTMAX version 4",), "")
    assert str(newer) == (
        "Oldest runtime that loads it: LiteRT 2.1.6, because of SOFTMAX version 4."
    )


@pytest.mark.parametrize(
    "dtype, sentence",
    [
        ("int32", "BATCH_MATMUL to int32 computes wrong values before LiteRT 1.3.0."),
        ("int8", "BATCH_MATMUL to int8 computes wrong values in LiteRT 2.0.2 to 2.1.2."),
    ],
)
def test_oldest_runtime_names_wrong_kernels(dtype, sentence):
    x, y = Tensor("x", (1, 8), "int8"), Tensor("y", (1, 8), dtype)
    found = oldest_runtime([Operator("BATCH_MATMUL", (x, x), (y,), 2)])
    assert found.faults == (sentence,) and str(found).endswith(sentence)


def test_oldest_runtime_of_unknown_operators_is_not_known():
    report = keras_qat.inspect_litert(foreign.custom())
    assert report.oldest_runtime.name == ""
    assert "not known, because of CUSTOM(Mine) version 1." in str(report)


def network():
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(2)])


def test_oldest_runtime_is_the_same_everywhere(tmp_path):
    """`check` before the export, the export, and a report on the file."""
    qat = keras_qat.quantize_model(network())
    keras_qat.calibrate(qat, np.zeros((2, 8, 8, 3), "float32"), verbose=0)
    runtime = keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert runtime.name == "TensorFlow Lite 2.17"
    report, checked = (
        keras_qat.inspect_litert(tmp_path / "model.tflite"),
        keras_qat.check(network()),
    )
    assert report.oldest_runtime == runtime == checked.oldest_runtime
    assert str(runtime) in str(report) and str(runtime) in str(checked)


def test_oldest_runtime_is_lowered_by_its_fix(tmp_path):
    checked = keras_qat.check(network()).oldest_runtime
    assert checked is not None
    qat = keras_qat.quantize_model(network(), overrides={keras.layers.Dense: "int8_per_tensor"})
    keras_qat.calibrate(qat, np.zeros((2, 8, 8, 3), "float32"), verbose=0)
    assert keras_qat.export_litert(qat, tmp_path / "model.tflite").name == checked.fixed
    narrow = keras_qat.quantize_model(network(), "int4")
    keras_qat.calibrate(narrow, np.zeros((2, 8, 8, 3), "float32"), verbose=0)
    runtime = keras_qat.export_litert(narrow, tmp_path / "narrow.tflite")
    assert (runtime.name, runtime.fixed) == ("TensorFlow Lite 2.17", "TensorFlow Lite 2.12")


def test_check_without_a_file_has_no_oldest_runtime():
    model = keras.Sequential([keras.Input((8, 8)), keras.layers.LSTM(4, recurrent_dropout=0.1)])
    assert keras_qat.check(model).oldest_runtime is None


def test_newest_measured_runtime_registers_no_more_than_the_installed_one():
    """Files of the newest release in the table load in the installed runtime."""
    from ai_edge_litert.interpreter import Interpreter

    if tuple(map(int, importlib.metadata.version("ai-edge-litert").split("."))) < (2, 2):
        pytest.skip("the table has newer releases")
    x, y = Tensor("x", (1, 2), "int8"), Tensor("y", (1, 2), "int8")
    for code, version, loads in (("GATHER", 8, True), ("GATHER", 9, False)):
        assert (first_runtime(code, version) == "LiteRT 2.2.0") == loads
        content = to_bytes(Model({"x": x}, {"y": y}, (Operator(code, (x,), (y,), version),)))
        try:
            Interpreter(model_content=content)
            error = ""
        except (RuntimeError, ValueError) as raised:
            error = str(raised)
        assert ("Didn't find op" in error) != loads


def test_profile_names_the_releases_that_computed_the_integers_of_keras():
    runs = json.loads(RELEASES.read_text())["runs"]
    exact = {run["runtime"]: True for run in runs}
    for run in runs:
        exact[run["runtime"]] &= not run["differing"] and not run["refused"]
    names = [runtime.partition("==")[2] for runtime, is_exact in exact.items() if is_exact]
    assert get_target("litert").releases == tuple(names)
    assert len(runs) == 2 * len(exact) and all(run["elements"] > 400_000 for run in runs)
