"""The command line: outputs, exit codes and errors."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from keras_qat_cli.arguments import number
from keras_qat_cli.main import COMMANDS, main
from tests.processes import ROOT, run_fresh_program, run_program, run_python

HELP = """
import contextlib, io, json, sys
from keras_qat_cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as text:
    code = main(sys.argv[1:])
print(json.dumps([code, text.getvalue(), sorted(sys.modules)]))
"""

# Prints a result without importing TensorFlow.
ONE_RESULT = """
import keras_qat_cli.main as command_line
command_line.main = lambda: print("result") or 0
command_line.run()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code, text, modules = run_python(HELP, *arguments, run=run_fresh_program)
    assert code == 0 and text
    heavy = {"keras", "keras_qat", "tensorflow", "numpy", "rich", "ai_edge_litert", "PIL"}
    assert {name.partition(".")[0] for name in modules} & heavy == set()


def test_help_names_every_command_and_exit_code(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    names = ["check", "sensitivity", "quantize", "export", "verify", "inspect", "compare", "demo"]
    assert list(COMMANDS) == names
    assert all(re.search(rf"\n    {name}\s", text) for name in names)
    assert all(f"\n  {code} " in text for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_every_command_has_its_description(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert str(COMMANDS[name].__doc__).splitlines()[0] in " ".join(text.split())
    assert "--json" in text and "--debug" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["check"],
        ["inspect", "a", "b"],
        ["compare", "a", "b", "--data", "c", "--runs", "0"],
    ],
)
def test_main_returns_2_for_wrong_usage(arguments, capsys):
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and "usage: keras-qat" in streams.err


def test_main_writes_wrong_usage_as_json(capsys):
    assert main(["compare", "a", "b", "--data", "c", "--runs", "0", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "UsageError" and "--runs" in error["what"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1/127.5", 1 / 127.5), ("1/255", 1 / 255), ("-1", -1), ("2e-3", 0.002), ("0.5/2", 0.25)],
)
def test_number_takes_fractions(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["1/0", "1/", "/2", "1/2/3", "nan", "inf", "1/inf/", "1e999", "a"])
def test_main_refuses_what_is_not_a_number(text, capsys):
    arguments = ["compare", "a", "b", "--data", "c", f"--scale={text}"]
    assert main(arguments) == 2
    assert f"invalid number value: '{text}'" in capsys.readouterr().err


def test_main_refuses_an_agreement_above_1(capsys):
    assert main(["compare", "a", "b", "--data", "c", "--min-agreement", "99"]) == 2
    assert "number from 0 to 1" in capsys.readouterr().err


def test_main_writes_an_error_as_one_block(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.tflite")]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.startswith("error: ")
    assert "none.tflite" in streams.err and "Traceback" not in streams.err


def test_main_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.tflite"), "--debug"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback") and "\nerror: " in text


def test_main_writes_an_error_as_json(unsupported, tmp_path, capsys, files):
    arguments = ["quantize", unsupported, "-o", str(tmp_path / "qat.keras")]
    assert main([*arguments, "--data", files["data.npz"], "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "UnsupportedLayerError" and error["layer"] == "sparse"
    assert list(tmp_path.iterdir()) == []


def test_main_returns_3_for_a_bug(monkeypatch, capsys):
    def fail(options):
        raise RuntimeError("something is wrong here")

    monkeypatch.setattr(COMMANDS["inspect"], "run", fail)
    assert main(["inspect", "file"]) == 3
    text = capsys.readouterr().err
    assert "error: something is wrong here" in text and "--debug" in text


def test_main_returns_130_for_an_interruption(monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["inspect"], "run", interrupt)
    assert main(["inspect", "file"]) == 130


def test_cli_runs_as_a_module(files):
    """Each process takes seconds to import TensorFlow, so one shows both output and exit code."""
    result = run_program("-m", "keras_qat", "inspect", files["float.keras"], "--json")
    assert result.returncode == 2, result.stderr
    assert json.loads(result.stdout)["error"]["type"] == "LiteRTFormatError"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="it is a device of Linux")
@pytest.mark.parametrize(("target", "code"), [(">/dev/full", 2), (">&-", 0)])
def test_cli_shows_no_traceback_if_it_cannot_write(target, code):
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(ONE_RESULT)} {target}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert ("The result cannot be written: No space left" in result.stderr) == bool(code)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="it is a device of Linux")
@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_cli_fails_if_it_cannot_write_its_help(argument):
    """Without a buffer the error is raised while argparse writes."""
    code = f"import sys; from keras_qat_cli.main import run; sys.argv[1:] = ['{argument}']; run()"
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-u", "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert result.returncode == 2, result.stderr
    assert b"The result cannot be written: No space left" in result.stderr
