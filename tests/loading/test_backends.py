import pytest

from tests.processes import run_python

SCRIPT = """
import json, sys, numpy as np, keras, keras_qat
worst = {}
for path in sys.argv[1:]:
    with np.load(path.replace(".h5", ".npz")) as saved:
        inputs, outputs = saved["input_0"], saved["output_0"]
    made = keras.tree.flatten(keras_qat.load_model(path)(inputs, training=False))[0]
    worst[path] = float(np.max(np.abs(np.asarray(made) - outputs)))
assert keras.backend.backend() == "jax"
print(json.dumps(worst))
"""
NAMES = ("convolutions", "functions_of_arithmetic", "functions_of_shapes", "nested", "recurrent")


@pytest.mark.slow
def test_load_model_on_another_backend(keras2):
    worst = run_python(SCRIPT, *map(keras2.path, NAMES), backend="jax")
    assert len(worst) == len(NAMES) and max(worst.values()) <= 1e-5
