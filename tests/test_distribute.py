"""Models under `tf.distribute`. Each test runs in a separate process with two logical CPUs."""

import json
import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.quantizers.modes import on_tensorflow

pytestmark = on_tensorflow


def run(function, folder):
    result = subprocess.run(
        [sys.executable, "-m", "tests.distributed", function, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_mirrored_training_gives_the_ranges_of_a_single_device(tmp_path):
    for name, (single, mirrored) in run("training", tmp_path).items():
        assert mirrored == single, name


def test_mirrored_calibration_gives_the_ranges_without_a_strategy(tmp_path):
    inside, without = run("calibration", tmp_path)
    assert inside == without
    assert inside[0][:2] == [-2, 2]  # without the outlier


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "scope", ["outside", *(pytest.param(name, marks=SLOW) for name in ("inside", "one_worker"))]
)
def test_mirrored_model_works_in_every_use(scope, tmp_path):
    found = run(scope, tmp_path)
    assert found and not [name for name, result in found.items() if result is False]
