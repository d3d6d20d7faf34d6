"""Callbacks. The oracles are the variables before and after, and numbers worked out by hand."""

import csv
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_qat
from keras_qat.callbacks import (
    DampenOscillations,
    FreezeBatchNorm,
    FreezeOscillations,
    FreezeRanges,
    RangeLogger,
)
from keras_qat.callbacks.oscillations import _History
from keras_qat.errors import InvalidTrainingError
from tests import seeds
from tests.quick import slow

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(32, 6)).astype("float32")
WRONG: Any = "last"
TARGETS = RNG.normal(size=(32, 2)).astype("float32")


def network():
    seeds.seed(0)
    steps = [layers.Dense(5, name="first"), layers.BatchNormalization(name="norm"), layers.ReLU()]
    return keras.Sequential([keras.Input((6,), name="x"), *steps, layers.Dense(2, name="head")])


def quantized(scheme="int4", **options):
    qat = keras_qat.quantize_model(network(), scheme, **options)
    keras_qat.calibrate(qat, DATA, verbose=0)
    return qat


class Seen(keras.callbacks.Callback):
    """Keeps the values of some variables after each training step."""

    def __init__(self, variables):
        super().__init__()
        self.variables, self.values = variables, []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append([np.array(keras.ops.convert_to_numpy(v)) for v in self.variables])

    def changed(self):
        """Returns whether any variable changed in each step but the first."""
        pairs = zip(self.values, self.values[1:], strict=False)
        return [any(not np.array_equal(a, b) for a, b in zip(*p, strict=True)) for p in pairs]


def fit(qat, callbacks, epochs=2, rate=0.05):
    """Trains for steps of 16 samples, two in an epoch."""
    qat.compile(keras.optimizers.Adam(rate), "mse")
    options = {"batch_size": 16, "epochs": epochs, "shuffle": False, "verbose": 0}
    return qat.fit(DATA, TARGETS, callbacks=callbacks, **options)


@pytest.mark.parametrize("arguments", [{"step": 3}, *slow({"epoch": 1})])
def test_freeze_batch_norm_at_its_time(arguments):
    qat = quantized()
    norm = qat.get_layer("first").batch_normalization
    seen, kernel = Seen(norm.variables), Seen([qat.get_layer("first").kernel])
    fit(qat, [FreezeBatchNorm(**arguments), seen, kernel], epochs=3)
    start = arguments.get("step", 2)
    assert seen.changed() == [step < start for step in range(1, 6)]
    assert all(kernel.changed())


def test_freeze_ranges_holds_observed_and_learned_ranges_and_steps():
    qat = quantized(range_rule="lsq", weight_range_rule="mse")
    seen = Seen([*qat.learned_ranges, qat.get_layer("head").weight_range.step])
    kernel = Seen([qat.get_layer("head").kernel])
    fit(qat, [FreezeRanges(epoch=1), seen, kernel], epochs=3)
    assert seen.changed() == [True, False, False, False, False] and all(kernel.changed())


def test_freeze_ranges_holds_moving_ranges():
    qat = keras_qat.quantize_model(network(), range_rule="moving_average")
    observer = qat.get_layer("head").observer
    seen = Seen([observer.minimum, observer.maximum])
    fit(qat, [FreezeRanges(step=2), seen], epochs=3)
    assert seen.changed() == [True, False, False, False, False]


@pytest.mark.parametrize("way", ["saved", "another target"])
def test_freeze_ranges_is_kept_by(way, tmp_path):
    qat = quantized(range_rule="lsq", weight_range_rule="mse")
    fit(qat, [FreezeRanges(step=0), FreezeBatchNorm(step=0)], epochs=1)
    if way == "saved":
        qat.save(tmp_path / "qat.keras")
        same: Any = keras.saving.load_model(tmp_path / "qat.keras", compile=False)
    else:
        same = keras_qat.quantize_model(qat, target="reference")
    head, norm = same.get_layer("head"), same.get_layer("first").batch_normalization
    seen = Seen([*same.learned_ranges, head.weight_range.step, *norm.variables])
    kernel = Seen([head.kernel])
    fit(same, [seen, kernel])
    assert seen.changed() == [False] * 3 and all(kernel.changed())
    same.trainable = False  # Keras does nothing if it is True already
    same.trainable = True
    seen = Seen([head.weight_range.step])
    fit(same, [seen])
    assert all(seen.changed())


def test_freezing_inside_another_model_is_found():
    qat = quantized()
    outer = keras.Sequential([keras.Input((6,)), qat])
    norm = qat.get_layer("first").batch_normalization
    seen = Seen(norm.variables)
    fit(outer, [FreezeBatchNorm(step=0), seen], epochs=1)
    assert not any(seen.changed())


def test_history_freezes_what_changes_direction():
    history = _History.of(np.array([0.0, 0.0, 0.0]))
    for one, two in ((1, 1), (0, 2), (1, 3), (0, 4)):
        history.observe(np.array([one, two, 0.0]), 0.5, 0.7)
    # Oscillations of the first weight: 0, 1, 1, of which the average is 0.75; then it is frozen.
    assert history.frequency.tolist() == [0.375, 0, 0]
    assert history.is_frozen.tolist() == [True, False, False]
    # The average of 0, 1, 0, 1 when it was frozen at the third change: 0.625 rounds to 1.
    assert history.integers.tolist() == [1, 4, 0]


@pytest.mark.filterwarnings("ignore::keras_qat.errors.RangeDriftWarning")
def test_freeze_oscillations_holds_integers_while_steps_move():
    qat = quantized()
    callback = FreezeOscillations(threshold=0.2, momentum=0.5)
    head = qat.get_layer("head")
    integers = []

    class Integers(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            integers.append(np.asarray(head.kernel_integers()[0]))

    fit(qat, [callback, Integers()], epochs=10, rate=0.5)
    assert 0 < callback.frozen_share < 1
    own = callback._histories[head.kernel.path]
    assert own.is_frozen.any()
    assert np.array_equal(integers[-1][own.is_frozen], own.integers[own.is_frozen])


def test_dampen_oscillations_moves_weights_to_their_integers():
    qat = quantized()
    head = qat.get_layer("head")
    head.kernel.assign(head.kernel * np.array([5, 1], "float32"))
    before, (integers, step) = np.array(head.kernel), map(np.asarray, head.kernel_integers())
    callback = DampenOscillations(strength=0.5)
    callback.set_model(qat)
    callback.set_params({"epochs": 1, "steps": 2})
    callback.on_train_begin()
    callback.on_train_batch_end(0)  # half of the training: half of the strength
    middle = integers * step
    is_inside = np.abs(before - middle) <= np.abs(step) / 2
    expected = np.where(is_inside, before + 0.25 * (middle - before), before)
    np.testing.assert_allclose(np.asarray(head.kernel), expected, rtol=1e-5)
    assert is_inside.any() and not is_inside.all()


def test_range_logger_writes_csv_and_tensorboard(tmp_path):
    qat = quantized()
    path, folder = tmp_path / "ranges.csv", tmp_path / "logs"
    fit(qat, [RangeLogger(DATA, csv_path=path, log_dir=folder)])
    with path.open() as file:
        lines = list(csv.DictReader(file))
    names = ["first/kernel", "head/kernel", "x_quantize", "first", "head"]
    assert [line["tensor"] for line in lines] == 2 * names
    assert [line["epoch"] for line in lines] == ["0"] * 5 + ["1"] * 5
    last = {line["tensor"]: line for line in lines[5:]}
    # The kernel of the last epoch, from the integers of the file.
    weights = keras_qat.integer_weights(qat)["head/kernel"]
    rounded = (weights.values.astype("int8") * weights.scale[:, None]).T
    exact = np.asarray(qat.get_layer("head").kernel, "float64")
    snr = 10 * np.log10(np.square(exact).sum() / np.square(rounded - exact).sum())
    assert float(last["head/kernel"]["snr_db"]) == pytest.approx(snr, rel=1e-4)
    clipped = np.mean(np.abs(exact / weights.scale) > 7.501)
    assert float(last["head/kernel"]["clipped"]) == pytest.approx(clipped)
    low, high = (float(last["x_quantize"][key]) for key in ("minimum", "maximum"))
    assert low == pytest.approx(DATA.min(), abs=0.05) and high == pytest.approx(
        DATA.max(), abs=0.05
    )
    assert float(last["x_quantize"]["clipped"]) == 0 and float(last["x_quantize"]["snr_db"]) > 35
    events = [*folder.iterdir()]
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events[0]))
        for value in event.summary.value
    }
    assert "ranges/head/kernel/snr_db" in tags and len(tags) == 4 * 5


@pytest.mark.parametrize(
    "callback",
    [
        FreezeBatchNorm(epoch=2),
        FreezeRanges(step=7),
        DampenOscillations(0.1),
        FreezeOscillations(0.05, 0.1),
        RangeLogger(csv_path="a.csv", steps=3),
    ],
    ids=lambda each: type(each).__name__,
)
def test_callbacks_are_serializable(callback):
    config = keras.saving.serialize_keras_object(callback)
    assert config["registered_name"] == f"keras_qat>{type(callback).__name__}"
    same = keras.saving.deserialize_keras_object(config)
    assert type(same) is type(callback) and same.get_config() == callback.get_config()


@pytest.mark.parametrize(
    "make",
    [
        FreezeBatchNorm,
        lambda: FreezeRanges(epoch=1, step=2),
        lambda: FreezeRanges(step=-1),
        lambda: FreezeBatchNorm(epoch=WRONG),
        lambda: DampenOscillations(0),
        lambda: FreezeOscillations(2),
        lambda: FreezeOscillations(momentum=float("nan")),
        RangeLogger,
    ],
)
def test_callbacks_refuse_invalid_arguments(make):
    with pytest.raises(InvalidTrainingError, match="To fix it: "):
        make()
