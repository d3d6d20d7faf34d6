"""The flash that files need on an Arm Ethos-U, as vela, Arm's compiler, measures it."""

from __future__ import annotations

import csv
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from keras_qat.errors import MissingPackageError, TargetError

ACCELERATOR = "ethos-u55-128"
# One process for all files, because vela takes longer to start than to compile a small file.
_SCRIPT = """
import sys
from ethosu.vela.vela import main
folder, accelerator, *names = sys.argv[1:]
for name in names:
    main([f"{folder}/{name}.tflite", "--accelerator-config", accelerator, "--output-dir", folder])
"""


def flash_by_vela(files: Sequence[bytes], accelerator: str = ACCELERATOR) -> list[int]:
    """Returns the flash that compiled files need: weights and commands of the NPU, and constants.

    Args:
        files: The contents of `.tflite` files with constant shapes.
        accelerator: The argument `--accelerator-config` of vela.

    Returns:
        The bytes of each file, vela's "Total Off-chip Flash used".

    Raises:
        MissingPackageError: If vela is not installed.
        TargetError: If vela cannot compile a file.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise MissingPackageError(
            "The flash of an Ethos-U is measured by vela, which is not installed.",
            fix="pip install 'keras-qat[vela]'",
        )
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        names = [f"file{i}" for i in range(len(files))]
        for each, content in zip(names, files, strict=True):
            (folder / f"{each}.tflite").write_bytes(content)
        command = [sys.executable, "-c", _SCRIPT, name, accelerator, *names]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        found = [next(folder.glob(f"{each}_summary_*.csv"), None) for each in names]
        if result.returncode != 0 or None in found:
            raise TargetError(
                "vela, the compiler of the target, cannot compile the file.",
                received=" ".join((result.stderr or result.stdout).split()[-40:]),
                fix='Call `keras_qat.check(model, target="ethos-u")` for the operators.',
            )
        return [_flash(path) for path in found if path is not None]


def _flash(summary: pathlib.Path) -> int:
    with summary.open() as lines:
        row = next(csv.DictReader(lines))
    kib = float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"])
    return round(1024 * kib)
