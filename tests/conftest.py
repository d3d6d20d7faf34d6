"""Settings of all tests: a chosen backend, a quiet TensorFlow, fixed seeds, no clock."""

import gc
import os
import random

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


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seeds Python, from which Keras draws the seeds of layers and initializers, and NumPy.

    `keras.utils.set_random_seed` would make TensorFlow forget its functions and kernels, which it
    then prepares again: that takes several times as long as a test.
    """
    import numpy as np

    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """Seeds TensorFlow, and frees the memory that it and Keras keep for models of a test module."""
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()  # which collects garbage


def pytest_terminal_summary(terminalreporter):
    """Prints the figures that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
