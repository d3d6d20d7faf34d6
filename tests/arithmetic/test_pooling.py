"""Averages against LiteRT's reference kernels."""

import numpy as np
import pytest

from keras_qat.arithmetic import pooling
from tests.arithmetic import oracle

WINDOWS = [(1, 1), (2, 3), (7, 7), (8, 8), (5, 1), (15, 17)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scales", [(0.1, 0.1), (0.3, 0.07), (1e-3, 2.0), (1e-9, 1.0)])
def test_mean_equals_the_reference_kernel(window, scales):
    rng = np.random.default_rng(0)
    x = oracle.int8s(rng, (300, *window, 8))
    sx, sy = np.array(scales, "float32")
    zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
    operands = [oracle.activation(x, sx, zx), oracle.constant("axes", np.array([1, 2], "int32"))]
    options = {"keepDims": False}
    expected = oracle.reference("MEAN", operands, (300, 8), sy, zy, 2, **options)
    sums = x.astype("int32").sum((1, 2))
    actual = pooling.mean(sums, window[0] * window[1], sx, zx, sy, zy, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


def test_mean_near_ties_equals_the_reference_kernel():
    rng = np.random.default_rng(1)
    x = (oracle.int8s(rng, (2000, 7, 7, 8)) // 64).astype("int8")
    operands = [oracle.activation(x, 0.05, 3), oracle.constant("axes", np.array([1, 2], "int32"))]
    options = {"keepDims": False}
    shape = (2000, 8)
    expected = oracle.reference("MEAN", operands, shape, 0.025, 3, 2, **options)
    actual = pooling.mean(x.astype("int32").sum((1, 2)), 49, 0.05, 3, 0.025, 3, *oracle.INT8)
    assert (np.asarray(actual) == expected).all()


@pytest.mark.parametrize("n", [1, 2, 3, 255, 65_537, 1_000_003])
def test_mean_multiplier_against_python_integers(n):
    rng = np.random.default_rng(n)
    scales = oracle.scales(rng, 2)
    sums = rng.integers(-128 * n, 128 * n, 500, "int32")
    multiplier, shift = oracle.quantize_multiplier(float(scales[0]) / float(scales[1]))
    k = n.bit_length() - 1
    expected = [oracle.multiply(v, (multiplier << k) // n, shift - k) for v in sums.tolist()]
    actual = pooling.mean(sums, n, scales[0], 0, scales[1], 0, -(2**30), 2**30)
    assert np.asarray(actual).tolist() == expected


@pytest.mark.parametrize("window", WINDOWS)
def test_average_equals_the_reference_kernel(window):
    x = oracle.int8s(np.random.default_rng(0), (300, *window, 8))
    options = {"padding": "VALID", "strideH": 1, "strideW": 1}
    options |= {"filterHeight": window[0], "filterWidth": window[1]}
    operands = [oracle.activation(x, 0.1, 3)]
    expected = oracle.reference("AVERAGE_POOL_2D", operands, (300, 1, 1, 8), 0.1, 3, 2, **options)
    sums = x.astype("int32").sum((1, 2), keepdims=True)
    assert (np.asarray(pooling.average(sums, window[0] * window[1])) == expected).all()


def test_average_at_padded_edges():
    x = oracle.int8s(np.random.default_rng(0), (50, 5, 5, 8))
    options = {"padding": "SAME", "strideH": 1, "strideW": 1, "filterHeight": 3, "filterWidth": 3}
    operands = [oracle.activation(x, 0.1, 3)]
    expected = oracle.reference("AVERAGE_POOL_2D", operands, x.shape, 0.1, 3, 2, **options)
    padded = np.pad(x.astype("int32"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = sum(padded[:, i : i + 5, j : j + 5] for i in range(3) for j in range(3))
    inside = np.pad(np.ones((5, 5), "int32"), 1)
    count = np.sum([inside[i : i + 5, j : j + 5] for i in range(3) for j in range(3)], axis=0)
    assert (np.asarray(pooling.average(sums, count[:, :, None])) == expected).all()


def test_average_rounds_ties_away_from_zero():
    assert np.asarray(pooling.average(np.array([2, -2, 6, -6, 1, -1], "int32"), 4)).tolist() == [
        1,
        -1,
        2,
        -2,
        0,
        0,
    ]


@pytest.mark.parametrize("axis", [1, 2])
def test_window_sums_of_any_sizes(axis):
    x = np.random.default_rng(0).integers(-255, 256, (3, 50, 40, 4), "int32")
    starts, stops = [0, 0, 7, 7, 39, 12], [1, 40, 8, 20, 40, 12]
    actual = np.asarray(pooling.window_sums(x, starts, stops, axis))
    parts = [
        np.take(x, range(*limits), axis).sum(axis) for limits in zip(starts, stops, strict=True)
    ]
    assert actual.dtype == "int32"
    assert (actual == np.stack(parts, axis)).all()


def test_window_sums_beyond_float32():
    x = np.full((1, 300_001), 255, "int32")
    x[0, -1] = 1
    assert np.asarray(pooling.window_sums(x, [0], [300_001], 1)).item() == 300_000 * 255 + 1
