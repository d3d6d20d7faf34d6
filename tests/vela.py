"""Compiles a file for an Arm Ethos-U NPU with vela, Arm's compiler."""

import csv
import pathlib
import subprocess
import sys
import tempfile


def compiled_by_vela(content, accelerator="ethos-u55-128"):
    """Returns the compiled file.

    In the compiled file, the NPU runs the CUSTOM operators. The CPU runs all others.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(content, accelerator, folder).read_bytes()


def summary_by_vela(content, accelerator="ethos-u55-128"):
    """Returns vela's summary of a file: estimated cycles, memory and so on, as strings."""
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
