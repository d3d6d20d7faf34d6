"""The choice of forms. The oracle is the enumeration of all choices."""

import itertools
import math
import sys

import numpy as np
import pytest

from keras_qat.errors import MissingPackageError
from keras_qat.mixed_precision.alternatives import Problem, alternatives_of
from keras_qat.mixed_precision.program import best_choice
from keras_qat.mixed_precision.sizes import FileSize

NAMES = ("int8", "int4", "int2")


def problem(seed, layers=6):
    """Makes a problem of layers with 2 or 3 forms, smaller ones with more noise."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 4, layers)
    sizes = [np.sort(rng.integers(10, 9999, count))[::-1].tolist() for count in counts]
    return Problem(
        [f"layer{i}" for i in range(layers)],
        [NAMES[:count] for count in counts],
        [np.sort(10.0 ** rng.uniform(-6, -1, count)).tolist() for count in counts],
        [[FileSize(size, size // 3 + int(rng.integers(99))) for size in own] for own in sizes],
        1e-4,
        FileSize(500, 700),
    )


def choices(made):
    return list(itertools.product(*(range(len(own)) for own in made.parts)))


def enumerated(made, limits):
    """Returns the least noise within limits, of all choices."""
    within = [each for each in choices(made) if max(made.excess(made.size(each), limits)) <= 0]
    return max((made.decibels(each) for each in within), default=None)


@pytest.mark.parametrize("seed", range(8))
def test_best_choice_equals_the_enumeration(seed):
    made = problem(seed)
    sizes = [made.size(each) for each in choices(made)]
    for part in (0.0, 0.1, 0.35, 0.7, 1.0):
        weights = int(np.quantile([size.weights for size in sizes], part))
        flash = int(np.quantile([size.flash for size in sizes], min(part + 0.1, 1.0)))
        for limits in ((weights, None), (None, flash), (weights, flash)):
            choice, best = made.best(limits), enumerated(made, limits)
            assert (choice is None) == (best is None)
            if choice is not None:
                assert max(made.excess(made.size(choice), limits)) <= 0
                assert made.decibels(choice) == pytest.approx(best, abs=1e-7)


def test_best_choice_within_no_limit_or_too_small_a_limit():
    assert best_choice([[0.0, 1.0], [2.0, 1.0]], [], []) == (0, 1)
    assert best_choice([[0.0, 1.0]], [[[8, 4]]], [3]) is None
    assert best_choice([], [[]], [0]) == () and best_choice([], [[]], [-1]) is None


def test_best_choice_leaves_out_forms_without_finite_outputs():
    assert best_choice([[math.nan, 1.0], [0.0, math.inf]], [[[1, 1], [1, 1]]], [2]) == (1, 0)


def test_problem_smallest_is_the_smallest_of_all_choices():
    made = problem(3)
    sizes = [made.size(each) for each in choices(made)]
    assert made.size(made.smallest((9, None))).weights == min(size.weights for size in sizes)
    assert made.size(made.smallest((9, 9))).flash == min(size.flash for size in sizes)


def test_alternatives_are_a_front_from_the_smallest_to_the_least_noise():
    made = problem(5)
    chosen = made.best((None, 6000)) or ()
    rows = list(alternatives_of(made, chosen))
    sizes, ratios = [row.flash_kib or 0.0 for row in rows], [row.decibels for row in rows]
    assert sizes == sorted(sizes) and ratios == sorted(ratios) and len(rows) > 5
    everything = [made.size(each) for each in choices(made)]
    assert sizes[0] == min(size.flash for size in everything) / 1024
    assert ratios[-1] == pytest.approx(enumerated(made, (None, 10**9)))
    assert [row.schemes for row in rows if row.is_chosen] == [made.schemes(chosen)]
    for size, row in zip(sizes, rows, strict=True):
        best = enumerated(made, (None, round(size * 1024)))
        assert row.decibels == pytest.approx(best, abs=1e-7)


def test_best_choice_names_the_extra_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingPackageError, match=r"keras-qat\[budget\]"):
        best_choice([[0.0]], [[[1]]], [1])
