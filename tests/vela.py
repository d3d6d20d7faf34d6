"""Compiling a file for an Arm Ethos-U NPU with vela, Arm's own compiler."""

import csv
import pathlib
import subprocess
import sys
import tempfile


def compiled_by_vela(content, accelerator="ethos-u55-128"):
    """The compiled file.

    In it, all that the NPU runs is CUSTOM operators; any other operator is left to the CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(content, accelerator, folder).read_bytes()


def summary_by_vela(content, accelerator="ethos-u55-128"):
    """What vela says of a file: its estimate of cycles, the memory and so on, as strings."""
    with tempfile.TemporaryDirectory() as folder:
        _run(content, accelerator, folder)
        (path,) = pathlib.Path(folder).glob("*_summary_*.csv")
        with path.open() as lines:
            return next(csv.DictReader(lines))


def _run(content, accelerator, folder):
    path = pathlib.Path(folder, "model.tflite")
    path.write_bytes(content)
    options = ["--accelerator-config", accelerator, "--output-dir", folder]
    command = [sys.executable, "-m", "ethosu.vela", str(path), *options]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    compiled = path.with_name("model_vela.tflite")
    assert result.returncode == 0 and compiled.exists(), result.stdout + result.stderr
    return compiled
