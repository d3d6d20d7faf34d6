"""What `import keras_qat` costs and offers."""

import keras_qat
from tests.processes import run_python

IMPORTED = """
import json, sys
import keras
before = set(sys.modules)
import keras_qat
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_brings_in_nothing_that_only_export_or_verification_need():
    added = run_python(IMPORTED)
    packages = {name.partition(".")[0] for name in added}
    heavy = {"ai_edge_litert", "flatbuffers", "h5py", "jax", "pandas", "rich", "sklearn", "torch"}
    assert packages & heavy == set()
    # `tensorflow` itself comes with `import keras`.
    assert "tensorflow" not in packages
    assert "keras_qat.lowering" in added


def test_every_public_name_is_there_and_documented():
    assert sorted(keras_qat.__all__) == keras_qat.__all__
    for name in keras_qat.__all__:
        public = getattr(keras_qat, name)
        assert isinstance(public, str) or public.__doc__
