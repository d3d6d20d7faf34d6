"""The page and the list of models of zoos.py."""

import json

import pytest


@pytest.fixture
def zoos(script):
    return script("zoos")


def test_zoos_lists_enough_models_of_different_names(zoos):
    names = [zoo.name for zoo in zoos.MODELS]
    assert len(set(names)) == len(names) >= 80
    assert len({zoo.family for zoo in zoos.MODELS}) >= 60


def test_zoos_reads_the_last_result_of_each_model(zoos, tmp_path):
    name = zoos.MODELS[0].name
    lines = [{"name": name, "verdict": verdict, "seconds": 1.0} for verdict in ("fault", "exact")]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"name": "gone"}])))
    assert {name: each["verdict"] for name, each in zoos.read(path).items()} == {name: "exact"}


def test_zoos_page_counts_verdicts(zoos, tmp_path):
    exact = {"verdict": "exact", "seconds": 2.0, "elements": 1234, "operators": {"ADD": 3}}
    refused = {"verdict": "refused", "seconds": 1.0, "cause": "SomeError: `a` is\nwrong"}
    broken = {"verdict": "not built", "seconds": 1.0, "cause": "ImportError: no package"}
    names = [zoo.name for zoo in zoos.MODELS[:3]]
    results = dict(zip(names, (exact, refused, broken), strict=True))
    path = tmp_path / "zoos.md"
    zoos.write_page(path, results)
    text = path.read_text()
    assert "1 of 2 models are exact and fully integer (50%), 1 of 2 families" in text
    assert "1 are refused, 0 have a fault, and 1 could not be built" in text
    assert (
        "| 3 | 1,234 |" in text and f"`{names[1]}`, refused: `` SomeError: 'a' is wrong ``" in text
    )
