"""Settings of all tests: a chosen backend, a quiet TensorFlow, fixed seeds, no clock."""

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


def pytest_collection_finish():
    """Makes garbage collections rare and short.

    A collection of the objects of all imported modules takes 0.3 s. They are never garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


@pytest.fixture(autouse=True)
def fixed_seeds():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """Frees memory that Keras and TensorFlow keep for the models of a test module."""
    import keras

    yield
    keras.backend.clear_session()  # which collects garbage


def pytest_terminal_summary(terminalreporter):
    """Prints the figures that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
