"""Running Python in other processes."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]


def run_program(*arguments, cwd=ROOT, **environment):
    """Runs `python` with arguments. Waits for its end, and captures what it prints.

    On TensorFlow the program runs in a fork of a process that has imported Keras, and nothing of
    this package. Programs whose imports are tested, or on other backends, need a process of
    their own: `run_fresh_program`.

    Args:
        *arguments: -c and code, -m and a module, or the path of a script; then its arguments.
        cwd: The working directory.
        **environment: Environment variables that the process has besides those of this process.
    """
    environment = _environment(environment)
    if sys.platform != "linux" or environment.get("KERAS_BACKEND") != "tensorflow":
        return run_fresh_program(*arguments, cwd=cwd, **environment)
    texts = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in ("stdout", "stderr")}
        request = {"arguments": texts, "cwd": str(cwd), "env": environment, **paths}
        _forks().stdin.write(json.dumps(request) + "\n")
        _forks().stdin.flush()
        status = int(_forks().stdout.readline())
        printed = {
            name: pathlib.Path(path).read_text(errors="replace") for name, path in paths.items()
        }
    return subprocess.CompletedProcess(texts, status, **printed)


def run_fresh_program(*arguments, cwd=ROOT, **environment):
    """Runs `python` like `run_program`, in a process that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=_environment(environment),
        capture_output=True,
        text=True,
        errors="replace",
    )


def run_python(script, *arguments, backend="tensorflow", run=run_program):
    """Runs code in another process. Returns the last line that it printed, read as JSON."""
    result = run("-c", script, *arguments, KERAS_BACKEND=backend)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def _environment(added):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, **added}


@functools.cache
def _forks():
    """Starts the process that is forked. It ends with this process, which closes its input."""
    process: Any = subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=ROOT,
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process
