"""The kernels that `verify` runs: those of the model's target, if they are installed."""

import importlib.util
import itertools

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat import LiteRTModel
from keras_qat.errors import InvalidDataError, MissingPackageError
from keras_qat.litert.running.separate_process import ARM64_FOLDER
from keras_qat.lowering import lower_model
from keras_qat.targets import get_target, violations
from tests.emulator import needs_arm64
from tests.layers.contract import Prepared
from tests.layers.test_contract import CASES
from tests.micro import needs_micro
from tests.models import quantized_small_network, small_images


@pytest.fixture
def made(tmp_path):
    """Makes the small network for a target, and its file."""

    def make(target):
        model = keras_qat.quantize_model(quantized_small_network(), target=target)
        keras_qat.export_litert(model, tmp_path / "model.tflite")
        return model, tmp_path / "model.tflite"

    return make


@needs_micro
def test_verify_proves_a_model_for_microcontrollers(made):
    model, path = made("tflite-micro")
    report = keras_qat.verify(model, path, small_images(5), verbose=0)
    assert list(report.layers) == ["tflite-micro", "reference", "default"]
    assert report.exact and report.samples == 5
    assert report.verdict.startswith("EXACT: tflite-micro kernels: 0 of ")
    predicted = LiteRTModel(path, "tflite-micro").predict(small_images(5), verbose=0)
    assert (predicted == model.predict(small_images(5), verbose=0)).all()


@needs_micro
def test_verify_finds_a_change_of_weights_in_the_kernels_of_microcontrollers(made):
    model, path = made("tflite-micro")
    weight = model.get_layer("head").kernel
    weight.assign(-weight)
    report = keras_qat.verify(model, path, small_images(), kernels="tflite-micro", verbose=0)
    assert list(report.layers) == ["tflite-micro"]
    assert not report.exact and report.layers["tflite-micro"]["head"].mismatches > 0
    assert report.verdict.startswith("NOT EXACT")


def test_verify_without_the_package_of_the_target_says_how_to_install_it(made, monkeypatch):
    model, path = made("tflite-micro")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = keras_qat.verify(model, path, small_images(), verbose=0)
    assert list(report.layers) == ["reference", "default"] and not report.exact
    assert report.verdict.startswith("NOT PROVEN (The kernels 'tflite-micro' need the package")
    assert "pip install 'keras-qat[micro]'" in report.verdict
    assert report.to_dict()["missing"] == report.missing
    assert report.mismatches("reference") == 0
    with pytest.raises(MissingPackageError, match=r"need the package.*pip install"):
        report.mismatches()
    with pytest.raises(InvalidDataError, match=r"one of 'reference', 'default'.*'arm64'.*verify"):
        report.mismatches("arm64")


def test_verify_raises_for_named_kernels_that_are_not_installed(made, monkeypatch, tmp_path):
    model, path = made("litert-arm64")
    monkeypatch.setenv(ARM64_FOLDER, str(tmp_path))
    for kernels in ("arm64", ("reference", "arm64")):
        with pytest.raises(MissingPackageError, match="emulated ARM64 Python.*`make arm64`"):
            keras_qat.verify(model, path, small_images(), kernels=kernels, verbose=0)


@needs_arm64
@pytest.mark.slow
def test_verify_proves_a_softmax_that_rounds_differently_on_arm64(tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(0, 3, (500, 40)).astype("float32")
    model = keras.Sequential([keras.Input((40,)), keras.layers.Softmax()])
    quantized = keras_qat.quantize_model(model, target="litert-arm64")
    keras_qat.calibrate(quantized, x, verbose=0)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", x, verbose=0)
    assert report.exact and report.verdict.startswith("EXACT: arm64 kernels: 0 of 40000 ")
    assert 0 < report.mismatches("default") < 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "case"),
    [
        pytest.param(target, case, marks=needs, id=f"{target}-{case.name}")
        for (target, needs), case in itertools.product(
            (("tflite-micro", needs_micro), ("litert-arm64", needs_arm64)), CASES
        )
    ],
)
def test_verify_proves_each_contract_case(target, case, tmp_path):
    prepared = Prepared(case, seed=1)
    quantized = keras_qat.quantize_model(prepared.quantized, target=target)
    profile = get_target(target)
    if violations(lower_model(quantized), profile):
        pytest.skip("does not run there")
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(
        quantized,
        tmp_path / "model.tflite",
        tuple(prepared.arrays),
        kernels=profile.interpreter,
        verbose=0,
    )
    assert report.exact, report
