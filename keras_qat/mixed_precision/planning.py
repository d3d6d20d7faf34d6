"""Quantizes a model within a budget: measures layers, chooses their schemes, measures the file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import keras

from keras_qat.data.batches import counted_batches
from keras_qat.errors import InvalidBudgetError
from keras_qat.layers import QuantizedModel
from keras_qat.mixed_precision.alternatives import Choice, Problem, alternatives_of
from keras_qat.mixed_precision.budget import Budget
from keras_qat.mixed_precision.candidates import (
    Data,
    calibrate_all,
    integers_of,
    quantized_in,
)
from keras_qat.mixed_precision.journal import Journal
from keras_qat.mixed_precision.measuring import Bench, Forms
from keras_qat.mixed_precision.owners import Owner
from keras_qat.mixed_precision.plan import BudgetPlan
from keras_qat.mixed_precision.runs import Runs, changed
from keras_qat.mixed_precision.sizes import FileSize, Scales
from keras_qat.passes.config import Config
from keras_qat.scheme import Scheme, get_scheme

# The solver's sizes are sums of parts. The file itself may differ by a few bytes of alignment.
_MOST_TRIES = 8


def quantize_within(
    model: keras.Model, config: Config, budget: Budget, data: Any
) -> QuantizedModel:
    """Quantizes a model with the schemes of layers that a budget allows, and calibrates it.

    Args:
        model: A float model.
        config: The configuration. Its scheme is that of all layers that get no other one.
        budget: The budget.
        data: The calibration data.

    Returns:
        The calibrated model, with the plan as `budget_plan`.

    Raises:
        InvalidBudgetError: If there is no data, or the budget cannot be met.
        MissingPackageError: If scipy, or vela for its target, is not installed.
    """
    if data is None:
        raise InvalidBudgetError(
            "A budget needs calibration data, to measure the noise of each layer.",
            received="calibration_data=None",
            expected="data of the types that `calibrate` takes",
            fix="Pass `calibration_data=images`.",
        )
    search = _Search(model, config, budget, data)
    problem = search.problem()
    limits = budget.limits()
    for _ in range(_MOST_TRIES):
        choice = problem.best(limits)
        if choice is None:
            break
        made, size = search.built(problem, choice)
        excess = problem.excess(size, budget.limits())
        if max(excess) <= 0:
            made.budget_plan = search.plan(problem, choice, size)
            return made
        limits = tuple(
            None if limit is None else limit - max(over, 0)
            for limit, over in zip(limits, excess, strict=True)
        )
    return search.least(problem)


class _Search:
    """The search for the schemes of a model's layers."""

    def __init__(self, model: keras.Model, config: Config, budget: Budget, data: Any):
        base = cast(Scheme, config.scheme)
        others = [get_scheme(each) for each in budget.schemes]
        self._schemes = [base, *(each for each in others if each.name != base.name)]
        self._model, self._config, self._budget = model, config, budget
        self._models, self._owners = quantized_in(model, self._schemes, config)
        self._data: Data = list(counted_batches(data, self._models[0]))
        self._sample = list(_first(self._data, budget.samples))
        calibrate_all(self._models, self._sample)
        self._scales = Scales(self._models[0].target, budget.flash_kib is not None)
        self._bench = Bench(self._models, self._owners, self._sample)
        self._forms = [_distinct(self._models, owner) for owner in self._owners]

    def problem(self) -> Problem:
        """Measures the noise and the size of each form of each layer with several forms."""
        several = [i for i, forms in enumerate(self._forms) if len(forms) > 1]
        owners = [self._owners[i] for i in several]
        forms = [self._forms[i] for i in several]
        costs, rest = self._noises(several)
        lowered = [self._scales.lowered(each) for each in self._models]
        by_model = [self._scales.parts(each, owners) for each in lowered]
        parts = [[by_model[form - 1][i] for form in own] for i, own in enumerate(forms)]
        whole = self._scales.whole(self._models[0])
        fixed = _less(whole, [own[0] for own in parts])
        names = [[self._schemes[form - 1].name for form in own] for own in forms]
        return Problem([owner.name for owner in owners], names, costs, parts, rest, fixed)

    def _noises(self, several: Sequence[int]) -> tuple[list[list[float]], float]:
        """Measures the noise of each form of these layers, and of all other layers together."""
        bench = self._bench
        runs = Runs(bench, Journal(None, {}), sum(len(self._forms[i]) for i in several) + 1, "auto")
        costs = []
        for i in several:
            own = [(form, f"{i} {form}") for form in self._forms[i]]
            costs.append(
                [runs.measure(name, changed(bench.all_in(0), i, form)).noise for form, name in own]
            )
        others = [0 if i in several else 1 for i in range(len(self._owners))]
        return costs, runs.measure("others", tuple(others)).noise

    def built(self, problem: Problem, choice: Choice) -> tuple[QuantizedModel, FileSize]:
        """Builds and calibrates the model of a choice, and measures its file."""
        overrides = {**_named(self._config.overrides), **self._pinned(), **problem.schemes(choice)}
        config = dataclasses.replace(self._config, overrides=overrides)
        (made,), _ = quantized_in(self._model, [self._schemes[0]], config)
        calibrate_all([made], self._data)
        return made, self._scales.whole(made)

    def _pinned(self) -> dict[str, str]:
        """Returns the schemes of layers that a word such as `"ends_int8"` sets."""
        if not isinstance(self._config.overrides, str):
            return {}
        made = {layer.name: layer for layer in self._models[0].layers}
        schemes = {owner.name: made[owner.layers[0]].scheme.name for owner in self._owners}
        base = self._schemes[0].name
        return {name: scheme for name, scheme in schemes.items() if scheme != base}

    def plan(self, problem: Problem, choice: Choice, size: FileSize) -> BudgetPlan:
        """Returns the plan of a choice whose file was measured."""
        return BudgetPlan(
            self._model.name,
            self._budget,
            problem.schemes(choice),
            size.weights,
            size.flash / 1024 if self._scales.has_flash else None,
            self._bench.measure(self._forms_of(choice)).decibels,
            tuple(alternatives_of(problem, choice)),
            self._scales.uses_vela,
        )

    def _forms_of(self, choice: Choice) -> Forms:
        """Returns the form of each owner in a choice."""
        chosen = iter(choice)
        return tuple(own[next(chosen)] if len(own) > 1 else 1 for own in self._forms)

    def least(self, problem: Problem) -> QuantizedModel:
        """Builds the smallest model, which may be within the budget by a few bytes.

        Raises:
            InvalidBudgetError: If the smallest model exceeds the budget.
        """
        choice = problem.smallest(self._budget.limits())
        made, size = self.built(problem, choice)
        if max(problem.excess(size, self._budget.limits())) <= 0:
            made.budget_plan = self.plan(problem, choice, size)
            return made
        sizes = [f"weights_bytes={size.weights}"]
        if self._scales.has_flash:
            sizes.append(f"flash_kib={-(-size.flash // 1024)}")
        raise InvalidBudgetError(
            "The budget is smaller than the smallest model with these schemes.",
            received=f"{self._budget}",
            expected=f"at least {' and '.join(sizes)}",
            fix=f"Pass `Budget({', '.join(sizes)})`, or allow narrower schemes.",
        )


def _distinct(models: Sequence[QuantizedModel], owner: Owner) -> list[int]:
    """Returns the forms of an owner with different integers, the first one of equal ones."""
    found: dict[Any, int] = {}
    for form, model in enumerate(models, 1):
        layers = {layer.name: layer for layer in model.layers}
        schemes = (getattr(layers.get(name), "scheme", None) for name in owner.layers)
        found.setdefault(tuple(map(integers_of, schemes)), form)
    return list(found.values())


def _first(data: Data, samples: int) -> Iterable[tuple[Any, int]]:
    """Yields the batches with the first samples."""
    totals = itertools.accumulate((count for _, count in data), initial=0)
    return (each for each, before in zip(data, totals, strict=False) if before < samples)


def _less(whole: FileSize, parts: Sequence[FileSize]) -> FileSize:
    """Returns the size of a file without some of its parts."""
    weights, flash = (sum(part[kind] for part in parts) for kind in (0, 1))
    return FileSize(whole.weights - weights, whole.flash - flash)


def _named(overrides: Any) -> Mapping[Any, Scheme | str | None]:
    """Returns the overrides that the user gave by names, classes and expressions."""
    return overrides if isinstance(overrides, Mapping) else {}
