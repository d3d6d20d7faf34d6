"""A training that was interrupted gives the bits of one that was not."""

import signal

import keras
import numpy as np
import pytest

from tests import resuming
from tests.processes import run_program
from tests.quick import some_quick


class Stopped(Exception):
    pass


def stop():
    raise Stopped


@pytest.fixture(scope="module")
def uninterrupted():
    return resuming.state(resuming.train(resuming.made()))


def assert_same(model, expected):
    found = resuming.state(model)
    assert found.keys() == expected.keys()
    assert [k for k, v in expected.items() if not np.array_equal(v, found[k])] == []


def test_uninterrupted_training_changes_all_kinds_of_variables(uninterrupted):
    """The other tests compare states, so training has to change all kinds of variables."""
    before = resuming.state(resuming.made())
    kinds = ("kernel", "moving_mean", "maximum", "updates", "left", "seed_generator_state")
    moved = {k for k, v in before.items() if not np.array_equal(v, uninterrupted[k])}
    assert all(any(path.endswith(kind) for path in moved) for kind in kinds)
    assert not any(np.any(v) for k, v in uninterrupted.items() if k.endswith("/left"))


SLOW = pytest.mark.slow


@pytest.mark.parametrize("steps", [pytest.param(2, marks=SLOW), pytest.param(6, marks=SLOW), 13])
def test_backup_and_restore_gives_equal_bits(steps, uninterrupted, tmp_path):
    with pytest.raises(Stopped):
        resuming.train(resuming.made(), [resuming.backed_up(tmp_path), resuming.Stop(steps, stop)])
    counter = resuming.Stop(0, stop)
    model = resuming.train(resuming.made(), [resuming.backed_up(tmp_path), counter])
    assert counter.steps == 24 - (steps - 1) // 6 * 6  # it did not start from the beginning
    assert_same(model, uninterrupted)


@pytest.mark.parametrize("name", some_quick(["{epoch}.keras", "{epoch}.weights.h5"], 0))
def test_model_checkpoint_gives_equal_bits(name, uninterrupted, tmp_path):
    is_whole = name.endswith(".keras")
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=not is_whole)
    with pytest.raises(Stopped):
        resuming.train(resuming.made(), [checkpoint, resuming.Stop(15, stop)])
    path = tmp_path / name.format(epoch=2)
    if is_whole:
        model = keras.saving.load_model(path)
    else:
        model = resuming.made()
        model.optimizer.build(model.trainable_variables)  # otherwise Keras refuses its state
        model.load_weights(path)
    assert_same(resuming.train(model, initial_epoch=2), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("steps", np.random.default_rng(0).permutation(np.arange(1, 24))[:10])
def test_backup_of_a_killed_process_gives_equal_bits(steps, uninterrupted, tmp_path):
    killed = run_program("-m", "tests.resuming", tmp_path, steps)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "backup").exists() == (steps > resuming.BATCHES)
    model = resuming.train(resuming.made(), [resuming.backed_up(tmp_path)])
    assert_same(model, uninterrupted)
