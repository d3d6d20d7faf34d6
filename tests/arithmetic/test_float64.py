"""Computations in double never use a function that PyTorch computes in float32."""

import ast
import hashlib
import importlib.util
import pathlib

import keras
import pytest
from keras import ops

from keras_qat.backend import float64, maximum
from tests.processes import run_python

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_qat"
# Functions of `keras.ops` that return float32 for float64 in Keras 3.15 on PyTorch 2.13.
LOSSY = "maximum minimum floor ceil floor_divide prod average cumsum matmul dot tensordot".split()
HARMLESS = {
    "ops.minimum(multiplier, 2 ** 31 - 1 - 2 ** 15)": "of integers",
    "ops.minimum(rounded, _INT16_MAX)": "of integers",
    "ops.minimum(_doubling_high_mul(a, b), _as_int64(INT32_MAX))": "of integers",
    "ops.minimum(n, _as_int64(1))": "of integers",
    "ops.maximum(-shift, 0)": "of integers",
    "ops.maximum(ops.cast(x, 'float32'), np.float32(2.0 ** (-_LIMIT)))": "of float32",
    "ops.minimum(ops.convert_to_tensor(scale, 'float32'), np.float32(LARGEST_SCALE / beta))": (
        "of float32"
    ),
    "ops.floor(logarithm)": "of float32",
    "ops.floor(steps)": "off by 1 only next to a whole number, where no tie is",
}
TREES = [
    ast.parse(path.read_text())
    for folder in ("arithmetic", "layers", "quantizers")
    for path in sorted((PACKAGE / folder).rglob("*.py"))
]
# Other modules call the functions of this module within `float64()`.
SHARED = ast.parse((PACKAGE / "arithmetic" / "exact_float.py").read_text())


def functions_of(tree):
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def blocks_in_double(tree):
    """Yields the statements of `with float64()`, and all functions that they reach."""
    functions = functions_of(SHARED) | functions_of(tree)
    todo: list[ast.AST] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(ast.unparse(item.context_expr) == "float64()" for item in node.items)
    ]
    seen = set()
    while todo:
        block = todo.pop()
        yield block
        for call in ast.walk(block):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name in functions and name not in seen:
                seen.add(name)
                todo.append(functions[name])


def lossy_calls(block):
    names = {f"ops.{name}" for name in LOSSY}
    calls = (node for node in ast.walk(block) if isinstance(node, ast.Call))
    return [ast.unparse(call) for call in calls if ast.unparse(call.func) in names]


def test_float64_blocks_call_no_function_that_rounds_on_pytorch():
    blocks = [block for tree in TREES for block in blocks_in_double(tree)]
    assert len(blocks) > 20
    assert {call for block in blocks for call in lossy_calls(block)} == HARMLESS.keys()


def test_lossy_calls_finds_a_call():
    assert lossy_calls(ast.parse("y = ops.maximum(x, 1)")) == ["ops.maximum(x, 1)"]


def test_maximum_keeps_doubles():
    with float64():
        x = ops.cast([0.1, float("nan"), 3.0], "float64")
        larger = maximum(x, 1e-12)
        assert keras.backend.standardize_dtype(larger.dtype) == "float64"
        found = ops.convert_to_numpy(larger).tolist()
    assert found[0] == float(ops.convert_to_numpy(x)[0])
    assert found[1] != found[1] and found[2] == 3.0


SCRIPT = """
import json, sys
import keras, keras_qat
import numpy as np
from keras import layers as L
x = image = keras.Input((8, 8, 3))
x = L.BatchNormalization(name="b0")(L.Conv2D(24, 3, name="c")(L.Rescaling(1 / 127.5, -1)(x)))
x = L.BatchNormalization(name="b1")(L.MaxPooling2D()(L.ReLU()(x)))
x = keras_qat.layers.UnfusedBatchNormalization(name="u")(x)
x = L.PReLU(name="p")(L.UnitNormalization()(L.LayerNormalization(name="n")(x)))
model = keras.Model(image, L.Dense(4, "softmax", name="h")(L.Flatten()(x)))
rng = np.random.default_rng(0)
for v in model.variables:
    kind = v.path.rpartition("/")[2]
    low, high = {"moving_variance": (0.001, 3), "gamma": (0.1, 2)}.get(kind, (-0.5, 0.5))
    v.assign(rng.uniform(low, high, v.shape).astype("float32"))
qat = keras_qat.quantize_model(model)
ends = iter(rng.uniform(1, 9, len(qat.weights)))
for v in qat.weights:
    kind = v.path.rpartition("/")[2]
    if kind in ("minimum", "maximum"):
        v.assign(next(ends) * (1 if kind == "maximum" else -1))
    elif kind == "updates":
        v.assign(1)
keras_qat.export_litert(qat, sys.argv[1])
print(json.dumps(keras.backend.backend()))
"""


@pytest.mark.slow
def test_export_of_equal_weights_has_equal_bytes_on_all_backends(tmp_path):
    digests = {}
    for backend in ("tensorflow", "jax", "torch"):
        if importlib.util.find_spec(backend) is not None:
            path = tmp_path / f"{backend}.tflite"
            assert run_python(SCRIPT, path, backend=backend) == backend
            digests[backend] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(set(digests.values())) == 1, digests
