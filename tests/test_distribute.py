"""Models under `tf.distribute`, in separate processes with two logical CPUs."""

import json

import keras
import numpy as np
import pytest

from tests.processes import run_program
from tests.quantizers.modes import on_tensorflow

pytestmark = on_tensorflow


def run(folder, *functions):
    arguments = "tests.distributed", folder, *functions
    result = run_program("-m", *arguments, CUDA_VISIBLE_DEVICES="-1")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of the quick tests, computed by one process because it starts slowly."""
    folder = tmp_path_factory.mktemp("distributed")
    return run(folder, "training", "calibration", "outside")


def test_mirrored_training_gives_the_ranges_of_a_single_device(found):
    for single, mirrored in found["training"].values():
        assert_near(mirrored, single)


def assert_near(ranges, expected):
    """Sums of two devices may differ from those of one device in their last bits."""
    one, other = keras.tree.flatten(ranges), keras.tree.flatten(expected)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_mirrored_training_of_a_convolution_gives_the_ranges_of_a_single_device(tmp_path):
    for single, mirrored in run(tmp_path, "convolution")["convolution"].values():
        assert_near(mirrored, single)


def test_mirrored_calibration_gives_the_ranges_without_a_strategy(found):
    inside, without = found["calibration"]
    assert inside == without
    assert inside[0][:2] == [-2, 2]  # without the outlier


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    """The results of the slow tests of training, computed by one process."""
    return run(tmp_path_factory.mktemp("loops"), "accumulation", "restart")


@pytest.mark.slow
def test_mirrored_accumulation_trains_like_one_larger_batch(loops):
    start, mirrored, single = loops["accumulation"]
    assert_near(mirrored, single)
    assert all(before != after for before, after in zip(start, mirrored, strict=True))


@pytest.mark.slow
def test_mirrored_backup_and_restore_gives_equal_bits(loops):
    uninterrupted, resumed, steps = loops["restart"]
    assert steps == 10  # from the second of three epochs of 5 steps
    assert resumed == uninterrupted and len(resumed) > 30  # weights, ranges, optimizer


def failed(uses):
    assert uses
    return [name for name, result in uses.items() if result is False]


def test_mirrored_model_works_in_every_use(found):
    assert not failed(found["outside"])


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["inside", "one_worker"])
def test_mirrored_model_works_in_every_use_inside_the_scope(scope, tmp_path):
    assert not failed(run(tmp_path, scope)[scope])
