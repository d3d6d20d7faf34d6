"""The generated pages of docs/ are equal to what their generators write."""

import importlib.util
import json
import operator
import pathlib
import re

import keras
import pytest

from keras_qat.layers.core import registry
from keras_qat.layers.core.registry import registered_rules

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator():
    return load(DOCS / "generate_supported.py")


def test_page_of_the_runtimes_is_up_to_date():
    results = json.loads((DOCS / "runtimes.json").read_text())
    page = load(DOCS.parent / "benchmarks" / "runtimes_page.py").page(results)
    stale = "docs/runtimes.md is stale: run `python benchmarks/runtimes.py --page`"
    assert (DOCS / "runtimes.md").read_text() == page, stale


def test_page_of_what_is_supported_is_up_to_date(generator):
    written = (DOCS / "supported.md").read_text()
    assert written == generator.page(), "docs/supported.md is stale: run `make docs-supported`"


def test_page_of_what_is_supported_names_every_rule_and_pass(generator):
    page = generator.page()
    assert "| `keras.layers.Conv2D` | `keras.layers.BatchNormalization`, `relu`, `relu6` |" in page
    for entry in registered_rules():
        assert generator.summary(entry.layer) in page
    for rewrite in generator.PIPELINE:
        assert generator.summary(rewrite) in page, rewrite.__name__


def test_page_of_the_rewrites_is_up_to_date():
    generator = load(DOCS / "generate_rewrites.py")
    page = generator.page()
    stale = "docs/rewrites.md is stale: run `make docs-rewrites`"
    assert (DOCS / "rewrites.md").read_text() == page, stale
    for rewrite in generator.PIPELINE:
        parts = [part for part, _ in generator.sections(rewrite)]
        assert parts == ["Matches", "Builds", "Why"], rewrite.__name__
        assert f"\n## {rewrite.__name__}\n" in page


def labels():
    matchers = [matcher for entry in registered_rules() for matcher in entry.pattern]
    return sorted({name for matcher in matchers for name in matcher.label.split(" or ")})


@pytest.mark.parametrize("label", [name for name in labels() if "." in name and " " not in name])
def test_label_on_the_page_is_a_public_name(label):
    if label != "x[...]":
        assert callable(operator.attrgetter(label.removeprefix("keras."))(keras)), label


def test_page_of_layers_has_code_that_runs(capsys):
    text = (DOCS / "layers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict = {"__name__": "examples"}
    for block in blocks:
        exec(block, names)
    expected = [
        "11 False",
        "['conv', 'norm', 'relu']",
        "None int8",
        "['image', 'stem', 'stem_batch_normalization', 'stem_relu6']",
        "int8 (16, 3, 3, 3) (16,) int32",
    ]
    # Other lines are progress bars.
    assert [line for line in capsys.readouterr().out.splitlines() if line in expected] == expected


def test_page_of_custom_layers_has_code_that_runs(monkeypatch, capsys):
    monkeypatch.setattr(registry, "_CALLS", dict(registry._CALLS))
    text = (DOCS / "custom-layers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {"__name__": "examples"}
    for block in blocks:
        exec(block, names)
    # Other lines are progress bars.
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    gated = ["QDense", "QSigmoid", "QMultiply", "QBatchNormalization", "QDense"]
    assert printed == [str(["InputLayer", "QuantizeInput", *rest]) for rest in (gated, ["QDense"])]
