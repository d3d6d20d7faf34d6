"""Kernels in a separate process: TensorFlow Lite Micro, and LiteRT on ARM64."""

import importlib.util
import sys

import numpy as np
import pytest

from keras_qat.errors import LiteRTFormatError, MissingPackageError
from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from keras_qat.litert.running.separate_process import ARM64_FOLDER, arm64_folder
from tests.emulator import needs_arm64
from tests.micro import needs_micro, run_on_micro


def one_operator(code, dtype="float32"):
    x, y = Tensor("x", (None, 2), dtype), Tensor("y", (None, 2), dtype)
    return to_bytes(Model({"x": x}, {"y": y}, (Operator(code, (x,), (y,)),)))


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Puts a shell command in place of the emulated Python."""
    monkeypatch.setenv(ARM64_FOLDER, str(tmp_path))

    def install(command):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{command}\n")
        file.chmod(0o755)

    return install


@needs_micro
def test_micro_convolution_by_hand(conv_model, conv_case):
    x, y = conv_case
    runner = Runner(to_bytes(conv_model), kernels="tflite-micro", expose_all=True)
    assert [each.shape for each in runner.inputs] == [(1, 2, 2, 1)]  # the batch of the runtime
    assert runner.run([x])[0].tolist() == y.tolist()
    assert runner.tensors()["y"].tolist() == y.tolist()
    assert [piece["y"].tolist() for piece in runner.pieces()] == [[sample] for sample in y.tolist()]


@needs_micro
def test_micro_exposes_every_tensor_of_a_chain(network):
    x = np.random.default_rng(0).normal(0, 2, (3, 8, 8, 4)).astype("float32")
    content = to_bytes(network)
    runner = Runner(content, kernels="tflite-micro", expose_all=True)
    runner.run([x])
    alone = run_on_micro([(content, [sample[None]], 1) for sample in x])
    assert runner.tensors()["y"].tolist() == [outputs[0][0].tolist() for outputs in alone]
    expected = ["x", "x_int8", "padded", "conv", "added", "pooled", "flat", "y"]
    assert sorted(runner.tensors()) == sorted(expected)
    assert np.unique(runner.tensors()["conv"]).size > 30


@needs_micro
def test_micro_names_an_operator_that_it_lacks():
    runner = Runner(one_operator("GELU"), kernels="tflite-micro")
    with pytest.raises(LiteRTFormatError, match="TensorFlow Lite Micro cannot run.*'GELU'"):
        runner.run([np.ones((1, 2), "float32")])


def test_micro_without_its_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'keras-qat\[micro\]'"):
        Runner(one_operator("RELU"), kernels="tflite-micro")


def test_arm64_without_its_folder_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setenv(ARM64_FOLDER, str(tmp_path))
    with pytest.raises(MissingPackageError, match=f"{tmp_path}/python.*`make arm64`"):
        Runner(one_operator("RELU"), kernels="arm64")


def test_arm64_folder_is_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv(ARM64_FOLDER, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert arm64_folder() == tmp_path / "keras_qat" / "arm64"


@pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script")
def test_arm64_failure_has_the_message_of_the_process(python):
    python("echo 'Illegal instruction' >&2; exit 3")
    runner = Runner(one_operator("RELU"), kernels="arm64")
    with pytest.raises(LiteRTFormatError, match="LiteRT on ARM64 .* status 3.*Illegal instruction"):
        runner.run([np.ones((1, 2), "float32")])


@pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script")
def test_separate_litert_takes_any_batch(python, conv_model, conv_case):
    """The program that the emulator runs, in the Python of this processor."""
    python(f"exec '{sys.executable}' \"$@\"")
    x, y = conv_case
    runner = Runner(to_bytes(conv_model), kernels="arm64", expose_all=True)
    assert [each.shape for each in runner.inputs] == [(None, 2, 2, 1)]
    for rows in (slice(0, 3), slice(1, 2)):
        assert runner.run([x[rows]])[0].tolist() == y[rows].tolist()
    assert len(runner.pieces()) == 1


@needs_arm64
@pytest.mark.slow
def test_arm64_convolution_by_hand(conv_model, fixed_conv_model, conv_case):
    x, y = conv_case
    for model in (conv_model, fixed_conv_model):
        runner = Runner(to_bytes(model), kernels="arm64", expose_all=True)
        assert runner.run([x])[0].tolist() == y.tolist()
        assert runner.tensors()["y"].tolist() == y.tolist()
