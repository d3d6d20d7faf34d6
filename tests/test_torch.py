"""Training and inference on PyTorch, in processes of their own."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def start(folder, *functions, **environment):
    """Starts a process that runs functions of `tests/on_torch.py`."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"KERAS_BACKEND": "torch", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.on_torch", str(folder), *functions],
        cwd=ROOT,
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of the quick tests, computed by one process because it starts slowly."""
    names = "data_loader", "own_loop", "own_loop_like_fit", "keras_loop", "autocast"
    return result(start(tmp_path_factory.mktemp("torch"), *names))


def test_calibrate_takes_a_data_loader_of_inputs_and_targets(found):
    assert found["data_loader"]


def test_train_and_eval_of_a_module_decide_for_calls_without_training(found):
    assert found["own_loop"] == [[4], True, True]  # four steps observed each range


def test_own_loop_in_pytorch_trains_like_fit(found):
    assert found["own_loop_like_fit"] < 1e-5


def test_calls_without_training_are_inference_after_a_loop_of_keras(found):
    assert found["keras_loop"] == [True] * 5


def test_autocast_leaves_inference_exact_and_trains(found):
    assert found["autocast"] == [True, True, True]


@pytest.mark.slow  # PyTorch compiles for minutes
def test_torch_compile_leaves_inference_exact(tmp_path):
    assert result(start(tmp_path, "compiled"))["compiled"]


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """Ranges and weights equal those of one process with the same batches, and so do the files."""
    (tmp_path / "one").mkdir()
    processes = [
        start(tmp_path, "distributed", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)
    ]
    first, second = (result(each)["distributed"] for each in processes)
    single = result(start(tmp_path / "one", "distributed"))["distributed"]
    assert first == second
    # A step gathers 4 numbers for each range. A batch normalization of 4 channels adds sums and
    # their gradients. DistributedDataParallel adds the gradients of all trained weights at once.
    gradients = (3 * 3 * 2 + 1) * 4 + 2 * 4 + (64 + 1) * 3
    sums = [["gloo:all_reduce", size] for size in (4, 4, 5, 5, gradients)]
    assert first["communicated"] == [*[["gloo:all_gather", 4]] * len(first["ranges"]), *sums]
    assert (tmp_path / "0.tflite").read_bytes() == (tmp_path / "1.tflite").read_bytes()
    for name, own in single["ranges"].items():
        np.testing.assert_allclose(first["ranges"][name], own, rtol=1e-6, atol=1e-6, err_msg=name)
    for a, b in zip(
        *(keras.tree.flatten(each["weights"]) for each in (first, single)), strict=True
    ):
        assert abs(a - b) < 1e-4
