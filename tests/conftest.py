"""Settings of all tests: a chosen backend, a quiet TensorFlow, fixed seeds, no clock."""

import collections
import functools
import gc
import os

# Keras and TensorFlow read these variables once, when they are imported. The tests
# import them: the process that distributes tests to workers needs neither.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

# Examples are equal in each run, also on a slow machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# A program for processes with PyTorch, which the tests start.
collect_ignore = ["on_torch.py"]


def pytest_collection_finish():
    """Makes garbage collections rare and short.

    A collection of the objects of all imported modules takes 0.3 s. They are never garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


@pytest.hookimpl(tryfirst=True)  # before the slow tests are left out
def pytest_collection_modifyitems(items):
    """Marks the parameters of `one_in` tests slow, except one in a number of them."""
    places = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("one_in")
        if mark is not None:
            name = item.nodeid.partition("[")[0]
            if places[name] % mark.args[0]:
                item.add_marker("slow")
            places[name] += 1


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seeds Python, from which Keras draws the seeds of layers and initializers, and NumPy."""
    from tests import seeds

    seeds.seed(0)


@pytest.fixture(autouse=True)
def graphs_as_written(request):
    """Turns off Grappler, TensorFlow's optimizer of graphs, in quick tests.

    Grappler takes a third of the time of `fit` and `predict` of a small model. Slow tests, and
    those marked `grappler`, run the graphs that users run.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        marks = (request.node.get_closest_marker(name) for name in ("grappler", "slow"))
        use_grappler(any(marks))


@functools.lru_cache(maxsize=1)  # only a change takes time
def use_grappler(value):
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not value})


@pytest.fixture(autouse=True, scope="session")
def seeded_tensorflow():
    """Seeds the operations of TensorFlow."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """Seeds a test module. Resets Keras's default names after it, and frees memory."""
    from tests import seeds

    seeds.seed(0)
    yield
    from keras.src.utils.naming import reset_uids

    from tests.memory import free_memory

    reset_uids()
    free_memory()


def pytest_terminal_summary(terminalreporter):
    """Prints the figures that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
