"""Damaged files: each is read, or raises a typed error. No file stops the interpreter."""

import collections
import os
import signal
import subprocess
import sys

import pytest

from keras_qat.errors import LiteRTFormatError
from keras_qat.inspection import inspect_litert
from keras_qat.litert import to_bytes
from tests.litert import foreign
from tests.litert.conftest import build_conv, build_network
from tests.litert.mutants import mutant
from tests.litert.test_custom_options import detector
from tests.processes import ROOT

SEEDS = {
    "network": lambda: to_bytes(build_network()),
    "sparse": foreign.sparse,
    "float32": lambda: foreign.converted("float32"),
    "int8": lambda: foreign.converted("int8"),
    "control flow": lambda: foreign.converted("control flow"),
    "detector": detector,
}
EACH = 4000  # mutants of each of 6 files: 24,000


def test_inspect_litert_reads_or_refuses_mutants():
    counts = collections.Counter()
    for content in (to_bytes(build_conv()), to_bytes(build_network()), foreign.sparse()):
        for number in range(150):
            try:
                report = inspect_litert(mutant(content, number))
            except LiteRTFormatError as error:
                counts["refused"] += 1
                assert "Received: at " in str(error)
            else:
                counts["accepted"] += 1
                assert str(report) and report.to_dict()
    assert counts.total() == 450
    assert counts["refused"] > 200 and counts["accepted"] > 50


def test_inspect_litert_refuses_every_truncated_file():
    content = to_bytes(build_conv())
    for length in range(len(content)):
        with pytest.raises(LiteRTFormatError):
            inspect_litert(content[:length])


def run_all(path, kernels, first, last):
    """Runs mutants in separate processes. Counts and replaces processes that die."""
    counts = collections.Counter()
    while first < last:
        arguments = [str(path), kernels, str(first), str(last)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.litert.mutants", *arguments],
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            errors="replace",
        )
        lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
        counts.update(text for _, text in lines if text != "begin")
        if done.returncode == 0:
            break
        assert lines, done.stderr
        number, text = lines[-1]
        assert text == "begin", f"{path}, mutant {number}: {text}\n{done.stderr}"
        counts["hang" if done.returncode == -signal.SIGALRM else "crash"] += 1
        print(f"{path.name}, {kernels} kernels, mutant {number}: ended by {-done.returncode}")
        first = int(number) + 1
    return counts


def test_run_all_counts_dead_processes(tmp_path, monkeypatch):
    """The process dies at the second of three files."""
    script = (
        "import os, sys; first = int(sys.argv[3]);"
        "[print(i, t, flush=True) for i in range(first, 3) for t in ('begin', 'ran')"
        " if (i, t) != (1, 'ran') or os.abort()]"
    )
    real = subprocess.run
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **kwargs: real([command[0], "-c", script, *command[3:]], **kwargs),
    )
    assert run_all(tmp_path / "x", "default", 0, 3) == {"ran": 2, "crash": 1}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["reference", "default"])
@pytest.mark.parametrize("name", SEEDS)
def test_runner_survives_all_mutants(name, kernels, tmp_path, record_property):
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(SEEDS[name]())
    half = EACH // 2
    first = 0 if kernels == "reference" else half
    counts = run_all(path, kernels, first, first + half)
    record_property("figures", f"{counts.total()} mutants: {dict(counts.most_common())}")
    assert counts.total() == half
    assert counts["crash"] == counts["hang"] == 0
    assert not [text for text in counts if text.startswith("untyped error")]
    assert counts["ran"] + counts["loaded"] > half // 20
