"""`import keras_qat`: the modules that it imports, what it changes, and the public names."""

import pytest

import keras_qat
from tests.processes import run_python

IMPORTED = """
import json, sys
import keras
from tests.process_state import changed, process_state
before, state = set(sys.modules), process_state()
import keras_qat
added = sorted(set(sys.modules) - before)
print(json.dumps((added, sorted(changed(state, process_state())))))
"""


@pytest.fixture(scope="module")
def imported():
    """The modules that the import adds, and the parts of the process's state that it changes."""
    return run_python(IMPORTED)


def test_import_leaves_the_process_unchanged_but_for_custom_objects(imported):
    assert set(imported[1]) <= {"custom objects"}


def test_import_does_not_import_modules_of_export_and_verify(imported):
    added = imported[0]
    packages = {name.partition(".")[0] for name in added}
    heavy = {"ai_edge_litert", "flatbuffers", "h5py", "jax", "pandas", "rich", "sklearn", "torch"}
    assert packages & heavy == set()
    # `import keras` imports `tensorflow`.
    assert "tensorflow" not in packages
    assert "keras_qat.lowering" in added


def test_public_names_exist_and_are_documented():
    assert sorted(keras_qat.__all__) == keras_qat.__all__
    for name in keras_qat.__all__:
        public = getattr(keras_qat, name)
        assert isinstance(public, str) or public.__doc__
