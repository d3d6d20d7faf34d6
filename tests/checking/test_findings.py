"""Findings: texts, codes, and the page that lists the codes."""

from pathlib import Path

import keras
import pytest
from keras import layers

import keras_qat
from keras_qat import errors
from keras_qat.checking import Finding
from keras_qat.checking.findings import WARNINGS, error_finding

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()


def test_finding_text_without_a_layer_or_a_fix():
    assert str(Finding("error", "no", None, None, "No.", None)) == "error: No. [no]"
    shown = str(Finding("warning", "no", "a", "a/b", "No.", "Go."))
    assert shown == "warning 'a', tensor 'a/b': No. To fix it: Go. [no]"


def test_finding_text_names_a_layer_once():
    found = Finding("warning", "no", "a", "b", "No: 'a', 'c'.", "Go.", ("a", "c"))
    assert str(found) == "warning: No: 'a', 'c'. To fix it: Go. [no]"


def test_finding_code_of_an_error_is_its_class():
    x = keras.Input((None, 4), name="x")
    assert keras_qat.check(keras.Model(x, layers.ReLU()(x))).errors[0].code == "invalid-model"
    x = keras.Input((3, 4), name="x")
    report = keras_qat.check(keras.Model(x, layers.LSTM(3, recurrent_dropout=0.1)(x)))
    assert [finding.code for finding in report.errors] == ["unsupported-layer"]


def test_error_finding_has_all_parts_of_the_error():
    error = errors.ExportError("No.", layer="a", received=3, expected="4", fix="Go.")
    found = error_finding(error)
    assert (found.level, found.code, found.layer, found.fix) == ("error", "export", "a", "Go.")
    assert f"{found.message} To fix it: {found.fix}" == str(error)
    assert error_finding(errors.ExportError("No.")).message == "No."


@pytest.mark.parametrize("code", [*WARNINGS, "unsupported-layer", "invalid-model"])
def test_findings_page_lists_each_code(code):
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("why", WARNINGS.values())
def test_findings_page_has_each_reason(why):
    assert why in " ".join(PAGE.split())
