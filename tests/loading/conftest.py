"""Files written by Keras 2, made once for all test processes."""

import fcntl
import json
import os

import numpy as np
import pytest

from tests.processes import run_program


class Keras2Files:
    """The files that `keras2_writer.py` has written."""

    def __init__(self, folder):
        self.folder = folder
        self.classes = json.loads((folder / "classes.json").read_text())

    def path(self, name):
        return self.folder / f"{name}.h5"

    def arrays(self, name):
        """Returns the inputs of a model and its outputs in Keras 2."""
        with np.load(self.folder / f"{name}.npz") as saved:
            kinds = ([], [])
            for key in sorted(saved.files, key=lambda key: int(key.rpartition("_")[2])):
                kinds[key.startswith("output")].append(saved[key])
            return kinds


APPLICATIONS = ("DenseNet121", "EfficientNetB0", "MobileNet", "MobileNetV2", "MobileNetV3Small")
APPLICATIONS += ("NASNetMobile", "ResNet50V2")


@pytest.fixture(scope="session")
def keras2(tmp_path_factory):
    return written(tmp_path_factory, "keras2")


@pytest.fixture(scope="session")
def applications(tmp_path_factory):
    return written(tmp_path_factory, "applications", *APPLICATIONS)


def written(tmp_path_factory, name, *models):
    base = tmp_path_factory.getbasetemp()
    # Each process of a run has a folder in a common one.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "classes.json").exists():
            folder.mkdir(exist_ok=True)
            result = run_program("-m", "tests.loading.keras2_writer", folder, *models)
            assert result.returncode == 0, result.stderr[-3000:]
    return Keras2Files(folder)
