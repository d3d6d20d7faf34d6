"""`keras-qat ... | head`: a closed pipe is not an error."""

import os
import subprocess
import sys

from tests.processes import ROOT

LONG_RESULT = """
import keras_qat_cli.main as command_line
command_line.main = lambda: print("line\\n" * 100000) or 0
command_line.run()
"""


def test_cli_with_a_closed_pipe_is_quiet_and_has_no_finding():
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", LONG_RESULT],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")
