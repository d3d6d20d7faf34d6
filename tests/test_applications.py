"""Every model of `keras.applications` becomes an exact file. Runs in `make test-all` only."""

import json
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "applications_exact.py"
NAMES = sorted(
    name for name in dir(keras.applications) if callable(getattr(keras.applications, name))
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_application_is_exact_and_fully_integer(name, tmp_path):
    path = tmp_path / "result.json"
    # A separate process frees the memory of a large model.
    command = [sys.executable, str(SCRIPT), "--names", name, "--json", str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(path.read_text())["results"][name]
    assert "failed" not in result, f"{result['failed']}\n{run.stderr[-4000:]}"
    assert list(result["targets"]) == ["litert", "reference"]
    for compared in result["targets"].values():
        assert compared["mismatches"][compared["kernels"]] == 0, compared["wrong_layers"]
        assert compared["float_tensors"] == []
    assert result["clone_difference"] < 1e-4 + 10 * result["nudged_difference"]
    # Large gradients limit the step. Some weights move less than float32 resolves.
    assert result["trained_variables"] > 0.75 * result["trainable_variables"]
    assert run.returncode == 0


def test_applications_page_has_a_row_for_each_model():
    page = (ROOT / "docs" / "applications.md").read_text()
    missing = [name for name in NAMES if f"\n| {name} |" not in page]
    assert not missing, f"docs/applications.md lacks {missing}: run {SCRIPT.name} --markdown"
