"""The generated pages of docs/ say what the code says."""

import importlib.util
import operator
import pathlib

import keras
import pytest

from keras_qat.layers import registered_slices

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("supported", DOCS / "generate_supported.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_of_what_is_supported_is_up_to_date(generator):
    written = (DOCS / "supported.md").read_text()
    assert written == generator.page(), "docs/supported.md is stale: run `make docs-supported`"


def test_page_names_every_slice_and_pass(generator):
    page = generator.page()
    assert "| `keras.layers.Conv2D` | `keras.layers.BatchNormalization`, `relu`, `relu6` |" in page
    for entry in registered_slices():
        assert generator.summary(entry.layer) in page
    for rewrite in generator.PIPELINE:
        parts = [part for part, _ in generator.sections(rewrite)]
        assert parts == ["Matches", "Builds", "Why"], rewrite.__name__


def labels():
    matchers = [matcher for entry in registered_slices() for matcher in entry.pattern]
    return sorted({name for matcher in matchers for name in matcher.label.split(" or ")})


@pytest.mark.parametrize("label", [name for name in labels() if "." in name])
def test_label_is_a_public_name(label):
    if label != "x[...]":
        assert callable(operator.attrgetter(label.removeprefix("keras."))(keras)), label
