"""A separate environment for TFMOT, and the worker processes of both tools."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import ROOT

ENVIRONMENT = ROOT / ".venv-tfmot"
REQUIREMENTS = Path(__file__).with_name("requirements-tfmot.txt")
WORKER = Path(__file__).with_name("tfmot_worker.py")


def make_environment(folder: Path = ENVIRONMENT, requirements: Path = REQUIREMENTS) -> Path:
    """Returns the Python that has TFMOT, or other requirements. Installs them if necessary."""
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < requirements.stat().st_mtime:
        print(f"Installing {requirements.name} into {folder} (a few minutes) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", requirements], check=True)
        stamp.touch()
    return python


def versions() -> dict[str, str]:
    """Returns the pinned versions of the requirements."""
    lines = REQUIREMENTS.read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pairs}


class Workers:
    """Worker processes. Each does one task.

    Args:
        pythons: The Python interpreter of each tool.
        seconds: The time limit of a task.
        script: The script of the workers.
    """

    def __init__(self, pythons: Mapping[str, Path], seconds: float, script: Path = WORKER):
        self._pythons, self._seconds, self._script = pythons, seconds, script

    def ask(self, tool: str, task: str, **arguments: Any) -> dict[str, Any]:
        """Returns the result of a task. If the task failed, `failed` is the reason."""
        print(f"  {tool}: {task} {arguments.get('name', '')}", flush=True)
        command = [self._pythons[tool], self._script, tool, task, json.dumps(arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self._seconds)
        except subprocess.TimeoutExpired:
            answer = {"failed": f"no result within {self._seconds:g} s"}
        else:
            answer = read_answer(done.returncode, done.stdout, done.stderr)
        print(f"    {answer.get('failed', 'done')} {answer.get('seconds', '')}", flush=True)
        return answer


def read_answer(code: int, stdout: str, stderr: str) -> dict[str, Any]:
    """Returns the JSON object in the last line of a worker, or the exit status of its process."""
    try:
        answer = json.loads(stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    last = (stderr.strip().splitlines() or ["nothing on stderr"])[-1]
    return {"failed": f"the process ended with {code} and without a result: {last}"}
