"""What every test has: a chosen backend, a quiet TensorFlow, fixed seeds, no clock."""

import gc
import os

# Both are read once, when Keras and TensorFlow are imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

# The same examples on each run, however slow the machine is.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def freed_memory():
    """Frees what Keras and TensorFlow keep of a module's models, such as eager kernels."""
    yield
    keras.backend.clear_session()
    gc.collect()


def pytest_terminal_summary(terminalreporter):
    """Prints what tests recorded as their figures, wherever they ran."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
