"""Runs files in TensorFlow Lite Micro in a separate process, since a kernel may abort it."""

import importlib.util
import pickle
import subprocess
import sys

import pytest

needs_micro = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="needs tflite-micro: pip install -e '.[micro]'",
)

_CHILD = """
import pickle, sys
from tflite_micro.python.tflite_micro import runtime

def run(content, inputs):
    try:
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=8_000_000)
        for index, array in enumerate(inputs):
            interpreter.set_input(array, index)
        interpreter.invoke()
    except RuntimeError:
        return None
    return [interpreter.get_output(index) for index in range(OUTPUTS[content])]

files = pickle.load(sys.stdin.buffer)
OUTPUTS = {content: outputs for content, _, outputs in files}
results = [run(content, inputs) for content, inputs, _ in files]
pickle.dump(results, sys.stdout.buffer)
"""


def run_on_micro(files):
    """Runs files, each in its own interpreter.

    Args:
        files: For each file its bytes, its input arrays and its number of outputs.

    Returns:
        The output arrays of each file. None if the runtime refuses the file or aborts.
    """
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=pickle.dumps(files), capture_output=True, check=False
    )
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    return pickle.loads(child.stdout)
