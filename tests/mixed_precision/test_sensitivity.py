"""Sensitivities. The oracles: models with `overrides`, and signal-to-noise ratios by hand."""

import csv
import functools
import math

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import (
    InvalidDataError,
    InvalidFileError,
    InvalidMetricError,
    InvalidSchemeError,
)
from keras_qat.mixed_precision import switching
from keras_qat.mixed_precision.measuring import Bench
from tests import seeds
from tests.models import called

X = np.random.default_rng(0).normal(size=(24, 6, 6, 2)).astype("float32")
Y = np.arange(24) % 3

FOUR_BITS = "int4"


@functools.cache
def model():
    seeds.seed(1)
    image = keras.Input((6, 6, 2), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(3, 3, name="conv")(image))
    x = layers.Flatten(name="flatten")(layers.ReLU(name="relu")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="small")


@functools.cache
def measured(scheme="int8", wider=None):
    return keras_qat.sensitivity(model(), X, scheme=scheme, wider=wider, verbose=0)


def ratio(scheme, overrides):
    """Returns the signal-to-noise ratio of a model with overrides, in dB."""
    exact = called(model(), X).astype("float64")
    qat = keras_qat.quantize_model(model(), scheme, overrides=overrides)
    keras_qat.calibrate(qat, X, verbose=0)
    noise = np.sum((called(qat, X) - exact) ** 2)
    return 10 * math.log10(np.sum(exact**2) / noise)


def row(report, name):
    return next(row for row in report.rows if row.layer == name)


def test_sensitivity_equals_that_of_models_with_overrides():
    report, narrow = measured(), measured(FOUR_BITS, "int8")
    near = functools.partial(pytest.approx, abs=1e-3)
    assert row(report, "conv").alone == near(ratio("int8", {"head": None}))
    assert row(report, "conv").wider == near(ratio("int8", {"conv": None}))
    assert row(narrow, "head").alone == near(ratio(FOUR_BITS, {"conv": None}))
    assert row(narrow, "head").wider == near(ratio(FOUR_BITS, {"head": "int8"}))
    assert narrow.quantized == near(ratio(FOUR_BITS, {}))


@pytest.mark.slow
def test_sensitivity_of_layers_left_in_16_bits_has_an_input_of_8_bits():
    wide = row(measured(wider="int16x8"), "conv").wider
    assert wide == pytest.approx(ratio("int8", {"conv": "int16x8"}), abs=1e-3)


def test_sensitivity_has_rows_of_the_users_layers_in_order_of_cost():
    report = measured(FOUR_BITS, "int8")
    assert {r.layer: r.origins for r in report.rows} == {
        "conv": ("conv", "bn", "relu"),
        "head": ("head",),
    }
    alone = [r.alone for r in report.rows]
    assert alone == sorted(alone)


def test_sensitivity_of_a_layer_without_narrow_weights_is_that_of_the_model():
    image = keras.Input((6, 6, 2), name="image")
    x = layers.AveragePooling2D(2, name="pool")(layers.Conv2D(3, 3, name="conv")(image))
    pooled = keras.Model(image, x)
    report = keras_qat.sensitivity(pooled, X, scheme=FOUR_BITS, wider="int8", verbose=0)
    # The pooling has the same integers in both schemes.
    assert row(report, "pool").wider == report.quantized < row(report, "conv").wider


def test_sensitivity_of_one_layer_is_that_of_its_rounding():
    x = keras.Input((1,), name="x")
    same = keras.Model(x, layers.Dense(1, kernel_initializer="ones", name="same")(x))
    # The scale is 1: 0.25 becomes 0, the others stay.
    data = np.array([[0.0], [255.0], [0.25], [10.0]], "float32")
    found = row(keras_qat.sensitivity(same, data, verbose=0), "same").alone
    assert found == pytest.approx(10 * math.log10((255**2 + 0.25**2 + 100) / 0.25**2), rel=1e-6)


def test_sensitivity_clips_inputs_beyond_their_range():
    x = keras.Input((2,), name="x")
    total = keras.Model(x, layers.Dense(1, kernel_initializer="ones", name="sum")(x))
    qat = keras_qat.quantize_model(total)
    keras_qat.calibrate(qat, np.array([[0.0, 0.0], [255.0, 255.0]], "float32"), verbose=0)
    found = keras_qat.sensitivity(qat, np.array([[510.0, 0.0]], "float32"), verbose=0)
    # 510 becomes 255, and then a multiple of the scale 2. The output could hold 510.
    assert row(found, "sum").alone == pytest.approx(10 * math.log10(510**2 / 255**2), abs=0.05)


def test_sensitivity_of_a_quantized_model_has_its_weights_and_ranges():
    qat = keras_qat.quantize_model(model())
    keras_qat.calibrate(qat, X, verbose=0)
    before = [np.array(each) for each in qat.get_weights()]
    report = keras_qat.sensitivity(qat, X, verbose=0)
    assert {r.layer: r.alone for r in report.rows} == {r.layer: r.alone for r in measured().rows}
    assert all(map(np.array_equal, before, qat.get_weights()))
    with pytest.raises(InvalidSchemeError, match="its own schemes"):
        keras_qat.sensitivity(qat, X, scheme="int8", verbose=0)


def test_sensitivity_of_a_layer_called_twice_is_one_row():
    x = keras.Input((3,), name="x")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="inner")], name="nested")
    twice = keras.Model(x, inner(layers.ReLU(name="between")(inner(x))))
    report = keras_qat.sensitivity(twice, np.eye(3, dtype="float32"), verbose=0)
    names = [r.layer for r in report.rows]
    assert names.count("inner") == 1 and "inner_1" not in names
    found = keras_qat.quantize_model(twice, overrides={"inner": None})
    assert found.get_layer("inner").scheme is None


def test_sensitivity_traces_each_layer_once_for_all_measurements(monkeypatch):
    calls, inner = [], switching.in_integers
    monkeypatch.setattr(
        switching, "in_integers", lambda layer, x: calls.append(layer.name) or inner(layer, x)
    )
    report = keras_qat.sensitivity(model(), X, verbose=0)
    assert len(report.rows) == 2
    assert len(calls) <= 2 * 2  # Keras may trace a first batch twice


def mean_error(targets, outputs):
    return np.mean(np.abs(outputs[:, 0] - targets))


def test_sensitivity_ranks_by_a_function_of_targets_and_outputs():
    found = keras_qat.sensitivity(
        model(), X, mean_error, targets=Y, mode="min", scheme=FOUR_BITS, verbose=0
    )
    exact = mean_error(Y, called(model(), X))
    assert found.float_metric == pytest.approx(exact, rel=1e-5)
    errors = [r.alone_metric or 0.0 for r in found.rows]
    assert errors == sorted(errors, reverse=True) and "mean_error" in str(found)


def test_sensitivity_ranks_by_a_keras_metric():
    data = [(X[:20], Y[:20]), (X[20:], Y[20:])]
    found = keras_qat.sensitivity(model(), data, "accuracy", scheme=FOUR_BITS, verbose=0)
    right = np.argmax(called(model(), X), axis=1) == Y
    assert found.float_metric == pytest.approx(right.mean())
    assert found.samples == 24 and found.metric == "accuracy"
    metrics = [r.alone_metric or 0.0 for r in found.rows]
    assert metrics == sorted(metrics)


def test_sensitivity_rejects_metrics_that_do_not_fit():
    def broken(targets, outputs):
        return outputs[targets]

    with pytest.raises(InvalidDataError, match="no targets"):
        keras_qat.sensitivity(model(), X, "accuracy", verbose=0)
    with pytest.raises(InvalidMetricError, match="cannot be computed"):
        keras_qat.sensitivity(model(), X, broken, targets=Y + 99, verbose=0)
    with pytest.raises(InvalidMetricError, match="mode"):
        keras_qat.sensitivity(model(), X, mode="best", verbose=0)


class Stopped(Exception):
    pass


def test_sensitivity_continues_an_interrupted_search(tmp_path, monkeypatch):
    path, calls, whole = tmp_path / "measured.jsonl", [], measured()
    measure = Bench.measure

    def stopping(bench, forms):
        calls.append(forms)
        if len(calls) == 4:
            raise Stopped
        return measure(bench, forms)

    search = functools.partial(keras_qat.sensitivity, model(), X, path=path, verbose=0)
    monkeypatch.setattr(Bench, "measure", stopping)
    with pytest.raises(Stopped):
        search()
    with path.open("ab") as file:
        file.write(b'["alone he')  # killed while it wrote
    assert search() == whole
    assert len(calls) == 4 + 3  # 6 measurements, 3 of them known
    assert search() == whole
    assert len(calls) == 7


def test_sensitivity_rejects_measurements_of_another_search(tmp_path):
    path = tmp_path / "measured.jsonl"
    keras_qat.sensitivity(model(), X, path=path, verbose=0)
    kept = path.read_bytes()
    with pytest.raises(InvalidFileError, match="another data"):
        keras_qat.sensitivity(model(), X[:8], path=path, verbose=0)
    with pytest.raises(InvalidFileError, match="another model"):
        keras_qat.sensitivity(model(), X, scheme=FOUR_BITS, path=path, verbose=0)
    with pytest.raises(InvalidFileError, match="another metric"):
        keras_qat.sensitivity(model(), X, "accuracy", targets=Y, path=path, verbose=0)
    changed = keras.models.clone_model(model())
    with pytest.raises(InvalidFileError, match="another model"):
        keras_qat.sensitivity(changed, X, path=path, verbose=0)
    assert path.read_bytes() == kept
    for content in (b"a,b\n1,2\n", b"no line", b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(InvalidFileError, match="does not hold measurements"):
            keras_qat.sensitivity(model(), X, path=path, verbose=0)
        assert path.read_bytes() == content


def test_sensitivity_report_as_table_csv_and_plot(tmp_path):
    report = measured(FOUR_BITS, "int8")
    lines = str(report).splitlines()
    assert f"{row(report, 'conv').alone:.1f}" in next(line for line in lines if "conv" in line)
    assert lines[-1] == f"All layers quantized: {report.quantized:.1f} dB on 24 samples."
    report.to_csv(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(r["layer"], float(r["alone"])) for r in read] == [
        (r.layer, r.alone) for r in report.rows
    ]
    left, right = report.plot().axes
    assert [bar.get_width() for bar in left.patches] == [r.alone for r in report.rows]
    assert [bar.get_width() for bar in right.patches] == [r.wider for r in report.rows]
    assert [text.get_text() for text in left.get_yticklabels()] == [r.layer for r in report.rows]
    with pytest.raises(InvalidFileError, match="cannot be written"):
        report.to_csv(tmp_path / "missing" / "rows.csv")
