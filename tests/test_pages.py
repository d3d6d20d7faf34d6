"""The pages of docs/ that show code: it runs, and prints what stands below it."""

import pathlib
import re

import pytest

import keras_qat

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = (
    "quick-start",
    "calibrating",
    "training",
    "pixels",
    "mixed-precision",
    "from-tfmot",
    "errors",
)
BAR = re.compile("━|\x08")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def blocks(page):
    """The code of a page, each with what the page says that it prints."""
    text = (DOCS / f"{page}.md").read_text()
    found = BLOCK.findall(text)
    assert len(found) == text.count("```python\n") and len(found) > 0
    assert sum(bool(printed) for _, printed in found) == text.count("```text\n")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_prints_what_it_says(page, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "examples"}
    for code, printed in blocks(page):
        exec(code, names)
        lines = capsys.readouterr().out.splitlines()
        # Beside them there are progress bars.
        assert [line for line in lines if line and not BAR.search(line)] == printed.splitlines(), (
            code
        )


def test_the_api_page_has_every_public_name():
    listed = re.findall(
        r"^::: keras_qat\.(\w+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE
    )
    # Of the layers it has those that are written by hand; the others are made by `quantize_model`.
    assert set(keras_qat.__all__) - set(listed) == {"__version__", "layers"}
