import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
SAVES = """
import json, pathlib, sys
place = sys.argv.index("--json")
arguments = sys.argv[1:place] + sys.argv[place + 2 :]
pathlib.Path(sys.argv[place + 1]).write_text(json.dumps(arguments))
"""


@pytest.fixture
def run_all(script):
    return script("run_all")


def write_scripts(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)


def test_run_all_reports_a_failure_and_runs_the_others(run_all, tmp_path):
    write_scripts(tmp_path, first="raise SystemExit(3)", second="import absent", third=SAVES)
    benchmarks = [run_all.Benchmark(name) for name in ("first", "second", "third")]
    outcomes = run_all.run_all(benchmarks, {}, tmp_path / "out", tmp_path)
    assert [each.failed for each in outcomes.values()] == [True, True, False]
    assert outcomes["first"].result == "FAILED, exit status 3"
    assert outcomes["third"].result == "passed"
    assert json.loads((tmp_path / "out" / "third.json").read_text()) == []


@pytest.mark.parametrize("text, status", [(SAVES, 0), ("raise SystemExit(2)", 1)])
def test_run_all_exit_status_shows_whether_all_passed(
    run_all, tmp_path, monkeypatch, capsys, text, status
):
    write_scripts(tmp_path, bad=text, good=SAVES)
    monkeypatch.setattr(run_all, "BENCHMARKS", [run_all.Benchmark(n) for n in ("bad", "good")])
    monkeypatch.setattr(run_all.run_all, "__defaults__", (tmp_path,))
    summary = tmp_path / "summary.json"
    command = ["run_all.py", "--folder", str(tmp_path / "out"), "--json", str(summary)]
    monkeypatch.setattr("sys.argv", command)
    assert run_all.main() == status
    assert ("FAILED, exit status 2" in capsys.readouterr().out) == bool(status)
    results = json.loads(summary.read_text())["results"]
    assert results["bad"]["failed"] == bool(status)
    assert not results["good"]["failed"]


def test_run_all_ignores_results_of_earlier_runs(run_all, tmp_path):
    write_scripts(tmp_path, silent="pass")
    (tmp_path / "silent.json").write_text("{}")
    outcomes = run_all.run_all([run_all.Benchmark("silent")], {}, tmp_path, tmp_path)
    assert outcomes["silent"].failed
    assert outcomes["silent"].result == "FAILED, no results were saved"
    assert not (tmp_path / "silent.json").exists()


def test_run_all_skips_benchmarks_without_data_with_the_reason(run_all, tmp_path):
    benchmark = run_all.Benchmark("absent", needs=("data", "model"))
    outcomes = run_all.run_all([benchmark], {"data": tmp_path, "model": None}, tmp_path, tmp_path)
    assert outcomes == {"absent": run_all.Outcome("skipped: needs --model")}


def test_run_all_passes_data_to_benchmarks(run_all, tmp_path):
    write_scripts(tmp_path, one=SAVES, two=SAVES, three=SAVES)
    benchmarks = [
        run_all.Benchmark("one", ("--quick",), needs=("data",)),
        run_all.Benchmark("two", takes=("data", "model")),
        run_all.Benchmark("three"),
    ]
    outcomes = run_all.run_all(benchmarks, {"data": "place"}, tmp_path, tmp_path)
    assert [each.result for each in outcomes.values()] == ["passed"] * 3
    assert json.loads((tmp_path / "one.json").read_text()) == ["--quick", "--data", "place"]
    assert json.loads((tmp_path / "two.json").read_text()) == ["--data", "place"]
    assert json.loads((tmp_path / "three.json").read_text()) == []


def scripts_that_run():
    own = (
        "run_all",
        "tfmot_worker",
        "deployed_files",
        "deployed_facts",
        "releases_worker",
        "zoos_worker",
        "accuracy_worker",
    )
    paths = sorted(FOLDER.glob("*.py"))
    return [p for p in paths if "__main__" in p.read_text() and p.stem not in own]


def test_run_all_and_the_readme_list_every_script(run_all):
    names = [path.stem for path in scripts_that_run()]
    assert sorted(each.name for each in run_all.BENCHMARKS) == names
    table = (FOLDER / "README.md").read_text()
    assert [name for name in names if f"| `python benchmarks/{name}.py" not in table] == []


@pytest.mark.parametrize("path", scripts_that_run(), ids=lambda path: path.stem)
def test_benchmark_uses_the_common_functions(path):
    text = path.read_text()
    assert re.search(r"parse\(\s*__doc__", text)
    wanted = ("print_environment()", "print_table(", "save(args.json")
    assert [each for each in wanted if each not in text] == []
    assert "argparse.ArgumentParser" not in text
