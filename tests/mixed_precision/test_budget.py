"""Models within a budget. The oracles: the file's bytes, the interpreter, and vela."""

import functools
import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat import Budget
from keras_qat.errors import (
    InvalidBudgetError,
    InvalidModelError,
    InvalidSchemeError,
    InvalidTargetError,
)
from tests import seeds
from tests.models import called

X = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("float32")


@functools.cache
def model():
    seeds.seed(1)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = layers.Conv2D(12, 3, activation="relu", name="second")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="small")


def quantized(budget, **options):
    return keras_qat.quantize_model(model(), budget=budget, calibration_data=X, **options)


def measured(qat, path, **options):
    """Exports a model. Returns the report on the file, after a check that it is exact."""
    keras_qat.export_litert(qat, path, **options)
    assert keras_qat.verify(qat, path, X, verbose=0).exact
    return keras_qat.inspect_litert(path)


def schemes(qat):
    names = ("first", "second", "hidden", "head")
    return {name: qat.get_layer(name).scheme.name for name in names}


def test_budget_of_weights_bounds_the_bytes_of_an_exact_file(tmp_path):
    qat = quantized(Budget(weights_bytes=2500), overrides={"first": "int8"})
    report, plan = measured(qat, tmp_path / "a.tflite"), qat.budget_plan
    assert report.weight_bytes == plan.weights_bytes <= 2500
    assert schemes(qat) == {**plan.overrides, "first": "int8"} and "first" not in plan.overrides
    assert len(set(plan.overrides.values())) > 1
    # The plan's noise is that of the model which was returned.
    exact = called(model(), X).astype("float64")
    noise = np.sum((called(qat, X) - exact) ** 2) / np.sum(exact**2)
    assert plan.decibels == pytest.approx(-10 * np.log10(noise), abs=1e-3)
    same = keras_qat.quantize_model(
        model(), overrides={**plan.overrides, "first": "int8"}, calibration_data=X
    )
    assert np.array_equal(called(same, X), called(qat, X))

    qat.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert schemes(loaded) == schemes(qat) and loaded.budget_plan is None
    assert np.array_equal(called(loaded, X), called(qat, X))

    (chosen,) = (each for each in plan.alternatives if each.is_chosen)
    assert chosen.weights_bytes == report.weight_bytes
    assert chosen.decibels == pytest.approx(plan.decibels, abs=3)  # noises add up
    lines = str(plan).splitlines()
    assert sum("chosen" in line for line in lines) == 1
    assert lines[-1].endswith(f"The file has {report.weight_bytes:,} bytes of weights.")
    [axes] = plan.plot().axes
    others, chosen = axes.collections
    assert len(others.get_offsets()) == len(plan.alternatives) - 1
    assert chosen.get_offsets().tolist() == [
        [each.weights_bytes, each.decibels] for each in plan.alternatives if each.is_chosen
    ]


@pytest.mark.slow
def test_budget_that_cannot_be_met_names_the_least_one(tmp_path):
    with pytest.raises(InvalidBudgetError, match="smaller than the smallest") as raised:
        quantized(Budget(flash_kib=1, weights_bytes=100))
    least: dict[str, Any] = {
        name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", raised.value.expected or "")
    }
    report = measured(quantized(Budget(**least)), tmp_path / "a.tflite")
    assert report.weight_bytes == least["weights_bytes"]
    assert least["flash_kib"] - 1 < report.size / 1024 <= least["flash_kib"]
    with pytest.raises(InvalidBudgetError):
        quantized(Budget(weights_bytes=least["weights_bytes"] - 1))


@pytest.mark.slow
def test_budget_that_is_large_leaves_the_scheme_of_the_model():
    qat = quantized(Budget(weights_bytes=10**6, schemes=["int4"]))
    assert set(schemes(qat).values()) == {"int8"}


@pytest.mark.slow
def test_budget_is_deterministic_and_trains(tmp_path):
    budget = Budget(flash_kib=5.5)
    first, second = quantized(budget), quantized(budget)
    assert first.budget_plan == second.budget_plan
    first.compile("adam", "mse")
    first.fit(X, np.zeros((32, 3)), epochs=1, verbose=0)
    assert measured(first, tmp_path / "a.tflite").size <= 5.5 * 1024


@pytest.mark.slow
def test_budget_of_flash_is_that_of_vela_for_ethos_u(tmp_path):
    pytest.importorskip("ethosu")
    from tests.vela import summary_by_vela

    path = tmp_path / "a.tflite"
    qat = quantized(Budget(flash_kib=4.0, target="ethos-u"))
    assert qat.target == "ethos-u"
    keras_qat.export_litert(qat, path, batch_size=1)
    flash = float(summary_by_vela(path.read_bytes())["off_chip_flash_memory_used"])
    assert flash == pytest.approx(qat.budget_plan.flash_kib) and flash <= 4.0
    assert {"int8", "int4"} <= set(qat.budget_plan.overrides.values())
    assert "by vela" in str(qat.budget_plan)
    assert keras_qat.verify(qat, path, X, verbose=0).exact


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InvalidBudgetError, "needs a size"),
        ({"weights_bytes": 0}, InvalidBudgetError, "not a positive number"),
        ({"flash_kib": "big"}, InvalidBudgetError, "not a positive number"),
        ({"flash_kib": float("nan")}, InvalidBudgetError, "not a positive number"),
        ({"flash_kib": 9, "samples": 0}, InvalidBudgetError, "not a positive number"),
        ({"flash_kib": 9, "schemes": "int4"}, InvalidBudgetError, "schemes to choose from"),
        ({"flash_kib": 9, "schemes": []}, InvalidBudgetError, "schemes to choose from"),
        ({"flash_kib": 9, "schemes": ["int3"]}, InvalidSchemeError, "Unknown"),
        ({"flash_kib": 9, "target": "toaster"}, InvalidTargetError, "toaster"),
    ],
)
def test_budget_rejects_invalid_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Budget(**arguments)


def test_quantize_model_rejects_invalid_budgets():
    with pytest.raises(InvalidBudgetError, match="calibration data"):
        keras_qat.quantize_model(model(), budget=Budget(weights_bytes=1000))
    with pytest.raises(InvalidBudgetError, match="another target"):
        quantized(Budget(weights_bytes=1000, target="ethos-u"), target="litert")
    with pytest.raises(InvalidBudgetError, match="not a `Budget`"):
        quantized(1000)
    qat = keras_qat.quantize_model(model())
    with pytest.raises(InvalidModelError):
        budget = Budget(weights_bytes=1000)
        keras_qat.quantize_model(qat, budget=budget, calibration_data=X, target="reference")
