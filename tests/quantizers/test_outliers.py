"""find_outliers. The oracle is data made with and without outlying samples."""

import numpy as np
import pytest

from keras_qat.quantizers import find_outliers


def kept(sizes, allowed=0.0):
    return find_outliers({"x": np.asarray(sizes, "float64")}, {"x": allowed})[1]


def drawn(seed, count=500, spread=0.3):
    return np.exp(np.random.default_rng(seed).normal(0, spread, count))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("factor", [10, 100, 1e6])
@pytest.mark.parametrize("count", [1, 5])
def test_find_outliers_finds_rare_samples_of_any_size(seed, factor, count):
    sizes = drawn(seed, spread=0.1)
    places = np.random.default_rng(seed).choice(500, count, replace=False)
    sizes[places] *= factor
    assert np.flatnonzero(~kept(sizes)).tolist() == sorted(places)


@pytest.mark.parametrize(
    "sizes",
    [
        np.ones(500),
        np.arange(500.0),
        np.append(np.ones(480), np.full(20, 100.0)),  # 4 %: not rare
        np.append(np.zeros(490), np.arange(1.0, 11.0)),  # sparse
        np.zeros(500),
        np.append(np.ones(14), 1e6),  # too few
    ],
    ids=["constant", "even", "frequent", "sparse", "zeros", "few"],
)
def test_find_outliers_keeps_usual_samples(sizes):
    assert kept(sizes).all()


@pytest.mark.parametrize("count", [20, 100, 500, 4000])
def test_find_outliers_keeps_heavy_tails(count):
    lost = sum((~kept(drawn(seed, count, spread=0.8))).sum() for seed in range(20))
    assert lost <= 20 * count * 1e-4


def test_find_outliers_keeps_allowed_sizes():
    sizes = np.append(np.ones(99), 255.0)
    assert not kept(sizes).all() and kept(sizes, allowed=255.0).all()


def test_find_outliers_does_not_depend_on_the_order():
    sizes = np.append(drawn(0), 100.0)
    order = np.random.default_rng(0).permutation(501)
    assert (kept(sizes)[order] == kept(sizes[order])).all()


def test_find_outliers_finds_samples_with_one_outlying_input():
    good, bad = np.ones(50), np.append(np.ones(49), 99.0)
    found, kept_samples = find_outliers({"a": good, "b": bad}, {"a": 0.0, "b": 0.0})
    assert [each.input for each in found] == ["b"]
    assert np.flatnonzero(~kept_samples).tolist() == [49]
