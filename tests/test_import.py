"""`import keras_qat`: the modules that it imports, and the public names."""

import keras_qat
from tests.processes import run_python

IMPORTED = """
import json, sys
import keras
before = set(sys.modules)
import keras_qat
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_does_not_import_modules_of_export_and_verify():
    added = run_python(IMPORTED)
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
