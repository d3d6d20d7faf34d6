"""Registered rules: each has a case, and declares its operators."""

import keras
import pytest

import keras_qat
from keras_qat.graph import layer_of
from keras_qat.layers.core import registry
from keras_qat.layers.core.registry import registered_rules
from keras_qat.litert.format.operators import declarations
from tests.layers.contract import Prepared
from tests.layers.litert_files import (
    exported,
    operators_of,
)
from tests.layers.test_contract import CASES


def rules_without_a_case():
    registered = {entry.layer for entry in registered_rules()}
    covered = {cls for case in CASES for cls in case.covers}
    return sorted(cls.__name__ for cls in registered - covered)


def test_every_rule_has_a_case():
    lacking = rules_without_a_case()
    assert not lacking, f"registered, but in no CASES of tests/layers: {lacking}"


def test_rule_without_a_case_is_found(monkeypatch):
    class QUntested(keras_qat.layers.QuantizedLayer):
        pass

    monkeypatch.setattr(registry, "_RULES", list(registry.registered_rules()))
    registry.register(layer_of(keras.layers.Layer))(QUntested)
    assert "QUntested" in rules_without_a_case()


def test_every_operator_of_a_rule_has_a_declaration():
    """An operator without roles, options and versions cannot be written or checked."""
    rules = registered_rules()
    written = {code for entry in rules for code in entry.layer.operators}
    assert written <= declarations().keys()
    assert all(declarations()[code].releases for code in written)


def rules_without_operators():
    registered = {entry.layer for entry in registered_rules()}
    return sorted(cls.__name__ for cls in registered if not hasattr(cls, "operators"))


def test_every_rule_declares_its_operators():
    lacking = rules_without_operators()
    assert not lacking, f"set the class attribute `operators`, what `lower` adds: {lacking}"


def test_rule_without_operators_is_found(monkeypatch):
    class QUndeclared(keras_qat.layers.QuantizedLayer):
        pass

    monkeypatch.setattr(registry, "_RULES", list(registry.registered_rules()))
    registry.register(layer_of(keras.layers.Layer))(QUndeclared)
    assert "QUndeclared" in rules_without_operators()


@pytest.mark.slow
def test_every_declared_operator_occurs():
    found = {}
    for case in CASES:
        # With float32 inputs and outputs the file has their conversions, too.
        content = exported(Prepared(case).quantized, inference_input_type="float32")
        occurring = set(operators_of(content))
        for cls in case.covers:
            found.setdefault(cls, set()).update(occurring)
    absent = {cls.__name__: missing for cls in found if (missing := {*cls.operators} - found[cls])}
    assert not absent, f"declared in `operators`, but in the file of no case: {absent}"
