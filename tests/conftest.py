"""Settings of all tests: a chosen backend, a quiet TensorFlow, fixed seeds, no clock."""

import gc
import os

# Keras and TensorFlow read these variables once, when they are imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

# Examples are equal in each run, also on a slow machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """Frees memory that Keras and TensorFlow keep for the models of a test module."""
    yield
    keras.backend.clear_session()
    gc.collect()


def pytest_terminal_summary(terminalreporter):
    """Prints the figures that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
