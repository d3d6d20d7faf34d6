"""`keras.distribution` on JAX with four devices and with two processes, and own loops."""

import collections
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.processes import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]


def start(folder, function, devices, **environment):
    own = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.on_jax", str(folder), function],
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
def single(tmp_path_factory):
    return result(start(tmp_path_factory.mktemp("single"), "single", 1))


def assert_near(ranges, expected):
    assert ranges.keys() == expected.keys()
    for name, own in expected.items():
        np.testing.assert_allclose(ranges[name], own, rtol=1e-6, atol=1e-6, err_msg=name)


def test_stateless_loops_of_jax_train_like_fit(tmp_path):
    for difference, is_exact in result(start(tmp_path, "loops", 1)):
        assert difference < 1e-5 and is_exact


@pytest.mark.parametrize("function", ["data_parallel", "model_parallel"])
def test_distributed_model_gets_the_ranges_of_a_single_device(function, single, tmp_path):
    assert_near(result(start(tmp_path, function, 4)), single)


def all_reduced(folder):
    """Returns the shapes that the compiled step adds or compares over devices, one a tensor."""
    (path,) = folder.glob("*train_step*cpu_after_optimizations.txt")
    found = re.findall(r"= (.+) all-reduce(?:-start)?\(", path.read_text())
    return [shape for each in found for shape in re.findall(r"f32\[([\d,]*)\]", each)]


def test_step_communicates_four_numbers_for_each_range(tmp_path):
    flags = "--xla_force_host_platform_device_count=2 --xla_dump_hlo_as_text"
    flags += f" --xla_dump_to={tmp_path}/xla --xla_dump_hlo_module_re=.*train_step.*"
    ranges = result(start(tmp_path, "data_parallel", 2, XLA_FLAGS=flags))
    loss, statistics, gradients = [""], 6 * ["4"], ["3,3,2,4", "4", "4,64", "4"]
    observed = len(ranges) * ["", "2", ""]  # a sum, the extremes, the samples outside
    found = collections.Counter(all_reduced(tmp_path / "xla"))
    assert found == collections.Counter([*loss, *statistics, *gradients, *observed])


def test_two_processes_get_the_ranges_of_a_single_device(single, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [start(tmp_path, "two_processes", 1, RANK=str(i), PORT=port) for i in range(2)]
    first, second = map(result, both)
    assert first == second
    assert_near(first, single)
    assert (tmp_path / "0.tflite").read_bytes() == (tmp_path / "1.tflite").read_bytes()
