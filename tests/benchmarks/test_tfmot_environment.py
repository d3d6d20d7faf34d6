import os
import pathlib
import sys

import pytest

ANSWERS = """
import json, sys
tool, task, arguments = sys.argv[1:]
print("something else first")
print(json.dumps({"tool": tool, "task": task, **json.loads(arguments)}))
"""


@pytest.fixture
def environment(script):
    return script("tfmot_environment")


@pytest.fixture
def workers(environment, tmp_path):
    def build(text, seconds=60):
        path = tmp_path / "worker.py"
        path.write_text(text)
        return environment.Workers({"tfmot": pathlib.Path(sys.executable)}, seconds, path)

    return build


def test_ask_returns_the_last_line(workers):
    answer = workers(ANSWERS).ask("tfmot", "family", name="MobileNet", size=32)
    assert answer == {"tool": "tfmot", "task": "family", "name": "MobileNet", "size": 32}


def test_ask_returns_the_failure_of_the_tool(workers, capsys):
    text = """print('{"failed": "ValueError: no such layer", "stage": "quantize"}')"""
    answer = workers(text).ask("tfmot", "family")
    assert answer == {"failed": "ValueError: no such layer", "stage": "quantize"}
    assert "ValueError: no such layer" in capsys.readouterr().out


def test_ask_reports_a_process_that_dies(workers):
    text = "import os, sys; print('fatal', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    expected = "the process ended with -9 and without a result: fatal"
    assert workers(text).ask("tfmot", "train") == {"failed": expected}


def test_ask_stops_a_process_that_hangs(workers):
    answer = workers("import time; time.sleep(600)", seconds=0.5).ask("tfmot", "train")
    assert answer == {"failed": "no result within 0.5 s"}


@pytest.mark.parametrize("stdout", ["", "\n", "no JSON", '{"cut": ', "[1, 2]", "3"])
def test_read_answer_takes_only_objects(environment, stdout):
    answer = environment.read_answer(0, stdout, "")
    assert answer == {"failed": "the process ended with 0 and without a result: nothing on stderr"}


def test_read_answer_ignores_the_answer_of_a_failed_process(environment):
    answer = environment.read_answer(1, '{"file": "x"}', "first\nlast\n")
    assert answer == {"failed": "the process ended with 1 and without a result: last"}


def test_versions_equal_those_of_the_requirements(environment):
    assert environment.versions()["tensorflow-model-optimization"] == "0.8.1"


def commands(environment, monkeypatch):
    ran = []
    monkeypatch.setattr(environment.subprocess, "run", lambda command, **_: ran.append(command))
    return ran


def test_make_environment_runs_once(environment, monkeypatch, tmp_path):
    ran = commands(environment, monkeypatch)
    assert environment.make_environment(tmp_path) == tmp_path / "bin" / "python"
    made, installed = ran
    assert made[1:] == ["-m", "venv", tmp_path]
    assert installed[0] == tmp_path / "bin" / "python"
    assert installed[-2:] == ["--requirement", environment.REQUIREMENTS]
    environment.make_environment(tmp_path)
    assert len(ran) == 2


def test_make_environment_runs_again_for_new_requirements(environment, monkeypatch, tmp_path):
    ran = commands(environment, monkeypatch)
    (tmp_path / ".installed").touch()
    os.utime(tmp_path / ".installed", (0, 0))
    environment.make_environment(tmp_path)
    assert len(ran) == 2
