"""Compiling a file for an Arm Ethos-U NPU with vela, Arm's own compiler."""

import pathlib
import subprocess
import sys
import tempfile


def compiled_by_vela(content, accelerator="ethos-u55-128"):
    """The compiled file.

    In it, all that the NPU runs is CUSTOM operators; any other operator is left to the CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        path.write_bytes(content)
        result = subprocess.run(
            [
                *(sys.executable, "-m", "ethosu.vela", str(path)),
                *("--accelerator-config", accelerator, "--output-dir", folder),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        compiled = path.with_name("model_vela.tflite")
        assert result.returncode == 0 and compiled.exists(), result.stdout + result.stderr
        return compiled.read_bytes()
