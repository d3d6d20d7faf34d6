import keras
import numpy as np
import pytest

from keras_qat.quantizers import Free, RangeObserver, ValueRange, checked_default_range
from keras_qat.quantizers.range_rules import MovingAverage
from tests.quantizers.modes import on_tensorflow


def observer(name=None, **arguments):
    made = RangeObserver(Free(**arguments), name=name)
    made.build()
    return made


def state(made):
    return float(made.minimum), float(made.maximum), int(made.updates)


def test_observer_starts_without_a_range():
    assert state(observer()) == (0, 0, 0)


def test_track_sets_the_range_first_and_widens_it_later():
    made = observer(rule=MovingAverage(0.75))
    made.track(np.array([[2, 3], [4, 6]], "float32"))
    assert state(made) == (2, 6, 1)
    made.track(np.array([-2, 9], "float32"))
    assert state(made) == (-2, 9, 2)
    made.track(np.array([2, 2], "float32"))
    assert state(made) == (-2 + 0.25 * 4, 9 - 0.25 * 7, 3)


@pytest.mark.parametrize("ends", [(0, 0), (0, 1e-3), (1, 1)], ids=str)
def test_track_recovers_from_a_constant_or_small_first_batch(ends):
    made = observer()
    made.track(np.array([ends] * 16, "float32"))
    for _ in range(4):  # 64 samples
        made.track(np.array([[-3, 2]] * 16, "float32"))
    assert state(made) == (pytest.approx(-3, rel=0.01), pytest.approx(2, rel=0.01), 5)


def test_track_widens_the_range_by_the_share_of_outlying_samples():
    made = observer()
    made.track(np.array([[-1, 1]] * 8, "float32"))
    made.track(np.array([[-1, 1]] * 7 + [[-1, 100]], "float32"))
    assert state(made) == (-1, 1 + 2 / 8, 2)


def test_track_holds_a_calibrated_range():
    made = observer()
    made.widen(-1, 16)
    rng = np.random.default_rng(0)
    amplitudes = np.exp(rng.normal(0, 0.8, size=(500, 2, 1)))
    amplitudes[rng.integers(0, 500, 5)] *= 100
    for batch in amplitudes * np.array([-0.05, 1.0]):
        made.track(batch.astype("float32"))
    assert state(made) == (-1, 16, 501) and made.is_held


@pytest.mark.parametrize(
    ("batch", "is_replaced"),
    [
        ((-0.5, 1.5), False),  # leaves it by half of its width
        ((-0.6, 1.5), True),
        ((0.0, 1.6), True),
        ((0.0, 0.0625), False),  # a sixteenth
        ((0.0, 0.03125), True),
        ((0.0, 0.0), False),  # dropped
    ],
)
@pytest.mark.parametrize("size", [1, 16, 64])
def test_track_replaces_a_calibrated_range_that_fits_no_sample(batch, is_replaced, size):
    made = observer()
    made.widen(0.0, 1.0)
    for step in range(64 // size):
        assert state(made) == (0.0, 1.0, 1 + step)
        made.track(np.array([batch] * size, "float32"))
    expected = np.float32(batch).tolist() if is_replaced else [0.0, 1.0]
    assert list(state(made)[:2]) == expected
    assert (made.was_replaced, made.is_held) == (is_replaced, not is_replaced)


def test_track_keeps_a_range_that_fits_one_of_a_few_samples():
    made = observer()
    made.widen(0.0, 1.0)
    for _ in range(20):
        made.track(np.full((32, 1), 0.01, "float32"))
        made.track(np.array([[0.01], [0.5]], "float32"))
    assert state(made)[:2] == (0.0, 1.0)


def test_track_never_replaces_the_calibrated_range_of_an_input():
    made = observer(keeps_calibration=True)
    made.widen(0, 255)
    for _ in range(3):
        made.track(np.full((64, 2), 9, "float32"))
    assert state(made) == (0, 255, 4)


def test_seen_range_is_that_of_training_while_another_is_held():
    made = observer(rule=MovingAverage(0.5))
    made.widen(-1, 4)
    made.track(np.array([[0.0, 6.0]], "float32"))
    assert state(made) == (-1, 4, 2)
    assert made.seen_range == (-0.5, 6.0)


def test_track_moves_a_calibrated_range_that_is_not_held():
    made = observer(rule=MovingAverage(0.5))
    made.widen(-1, 4, hold=False)
    made.track(np.array([[0.0, 6.0]], "float32"))
    assert state(made) == (-0.5, 6, 2)


def test_observer_loads_the_three_variables_of_version_0_1():
    def loaded(updates):
        made = observer()
        made.load_own_variables({"0": np.float32(-1), "1": np.float32(3), "2": np.int32(updates)})
        return made

    assert state(loaded(1)) == (-1, 3, 1) and loaded(1).is_held
    assert state(loaded(9)) == (-1, 3, 9) and not loaded(9).is_held
    assert loaded(-1).is_default and loaded(9).seen_range == (-1, 3)


def test_widen_sets_then_extends():
    made = observer()
    made.widen(2, 3)
    assert state(made) == (2, 3, 1)
    made.widen(-1, 2.5)
    assert state(made) == (-1, 3, 2)
    made.widen(0, 4)
    assert state(made) == (-1, 4, 3)


def test_reset_forgets():
    made = observer()
    made.widen(2, 3)
    made.reset()
    assert state(made) == (0, 0, 0)
    made.widen(5, 6)
    assert state(made) == (5, 6, 1)


def test_observer_variables_are_not_trained_and_have_an_aggregation():
    made = observer()
    assert made.trainable_variables == []
    kinds = {v.name: (v.shape, v.dtype, v.aggregation) for v in made.variables}
    assert kinds == {
        "minimum": ((), "float32", "only_first_replica"),
        "maximum": ((), "float32", "only_first_replica"),
        "updates": ((), "int32", "only_first_replica"),
        "seen": ((2,), "float32", "only_first_replica"),
        "held": ((), "int32", "only_first_replica"),
        "unfit": ((), "int32", "only_first_replica"),
    }


def test_observer_configuration_makes_an_equal_observer():
    arguments = {"rule": MovingAverage(0.9), "usual_range": (0.0, 255.0), "keeps_calibration": True}
    made = observer(name="range", **arguments)
    copy = RangeObserver.from_config(made.get_config())
    assert (copy.specification, copy.name) == (Free(**arguments), "range")
    assert keras.saving.get_registered_name(RangeObserver) == "keras_qat>RangeObserver"


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_track_in_a_compiled_function(jit_compile):
    import tensorflow as tf

    made = observer(rule=MovingAverage(0.75))
    track = tf.function(made.track, jit_compile=jit_compile)
    for batch in ([2.0, 6.0], [-2.0, 9.0], [2.0, 2.0]):
        track(tf.constant(batch))
    assert state(made) == (-1, 7.25, 3)


BATCHES = [[2, np.nan, 6, np.inf], [np.nan] * 4, [-2, 9, -np.inf, 3], [1, 7, 1, np.nan]]
STATES = [(2, 6, 1), (2, 6, 1), (-2, 9, 2), (-1.25, 8.5, 3)]


def test_track_skips_values_that_are_not_finite():
    made = observer(rule=MovingAverage(0.75))
    for batch, expected in zip(BATCHES, STATES, strict=True):
        made.track(np.array(batch, "float32"))
        assert state(made) == expected


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_track_skips_values_that_are_not_finite_when_compiled(jit_compile):
    import tensorflow as tf

    made = observer(rule=MovingAverage(0.75))
    track = tf.function(made.track, jit_compile=jit_compile)
    for batch, expected in zip(BATCHES, STATES, strict=True):
        track(tf.constant(batch, "float32"))
        assert state(made) == expected


def test_track_finds_one_nan_among_many_values():
    made = observer()
    batch = np.linspace(-1, 2, 100_000, dtype="float32")
    batch[777] = np.nan
    made.track(batch.reshape(100, -1))
    assert state(made) == (-1, 2, 1)


def test_track_takes_values_whose_sum_overflows():
    made = observer()
    made.track(np.array([3e38, 2e38, -1e38], "float32"))
    assert state(made) == (np.float32(-1e38), np.float32(3e38), 1)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("ends", [(np.nan, np.nan), (-1.0, np.inf)], ids=str)
def test_track_replaces_a_range_that_is_not_finite(ends, keeps):
    made = observer(keeps_calibration=keeps)
    made.widen(*ends)
    made.track(np.array([-1, 2], "float32"))
    assert state(made) == (-1, 2, 2)


def test_track_leaves_a_default_range_if_no_value_is_finite():
    made = observer()
    made.assume(-6, 6)
    made.track(np.full(3, np.inf, "float32"))
    assert state(made) == (-6, 6, -1)


@on_tensorflow
def test_track_has_no_gradient():
    import tensorflow as tf

    made, x = observer(), tf.Variable(tf.constant([1.0, 2.0]))
    with tf.GradientTape() as tape:
        made.track(x)
        y = made.maximum.value + 0
    assert tape.gradient(y, x) is None


def test_value_range_follows_the_values_of_its_variable():
    table = keras.Variable(np.array([[1.0, -2.0]], "float32"))
    values = ValueRange(lambda: table)
    assert (float(values.minimum), float(values.maximum)) == (-2.0, 1.0)
    table.assign([[0.5, 3.0]])
    assert (float(values.minimum), float(values.maximum)) == (0.5, 3.0)


def test_widen_replaces_a_default_range():
    made = observer()
    made.assume(-6, 6)
    assert state(made) == (-6, 6, -1) and made.is_default and not made.is_observed
    made.assume(0, 1)  # a second default range
    assert state(made) == (0, 1, -1)
    made.widen(0.25, 0.5)
    assert state(made) == (0.25, 0.5, 1) and made.is_observed and not made.is_default
    made.assume(-6, 6)
    assert state(made) == (0.25, 0.5, 1)
    made.reset()
    assert not made.is_observed and not made.is_default


@pytest.mark.parametrize("keeps", [False, True])
def test_track_replaces_a_default_range_exactly(keeps):
    made = observer(keeps_calibration=keeps)
    made.assume(-1e6, 1e6)
    made.track(np.array([-0.1, 0.3], "float32"))
    assert state(made) == (np.float32(-0.1), np.float32(0.3), 1)


@pytest.mark.parametrize("ends", [(2, 6), [2.0, 6.0], np.array([2, 6], "int8")], ids=str)
def test_checked_default_range_includes_zero(ends):
    assert checked_default_range(ends) == (0.0, 6.0)
    assert checked_default_range([-end for end in ends][::-1]) == (-6.0, 0.0)
    assert checked_default_range((0, 0)) == (0.0, 0.0)


@on_tensorflow
def test_build_leaves_layers_around_out_of_names_of_variables():
    """TensorFlow keeps a kernel for each name. Keras saves by the path."""
    with keras.name_scope("outer"):
        made = RangeObserver(name="range")
        made.build()
    assert made.minimum.value.name == "minimum:0"
    assert made.minimum.path == "outer/range/minimum"
