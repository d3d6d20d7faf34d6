"""An environment of its own for TFMOT, and the processes that work for one tool or the other."""

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


def make_environment(folder: Path = ENVIRONMENT) -> Path:
    """Returns the interpreter that has TFMOT; installs it, if that was not done yet."""
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        print(f"Installing {REQUIREMENTS.name} into {folder} (a few minutes) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
        stamp.touch()
    return python


def versions() -> dict[str, str]:
    """What the requirements pin."""
    lines = REQUIREMENTS.read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pairs}


class Workers:
    """Processes that do one task each.

    Args:
        pythons: The interpreter of each tool.
        seconds: How long a task may take.
        script: What is run.
    """

    def __init__(self, pythons: Mapping[str, Path], seconds: float, script: Path = WORKER):
        self._pythons, self._seconds, self._script = pythons, seconds, script

    def ask(self, tool: str, task: str, **arguments: Any) -> dict[str, Any]:
        """The result of a task; one that did not end well has `failed`, which says why."""
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
    """The JSON object in the last line that a worker printed, or how its process ended."""
    try:
        answer = json.loads(stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    last = (stderr.strip().splitlines() or ["nothing on stderr"])[-1]
    return {"failed": f"the process ended with {code} and without a result: {last}"}
