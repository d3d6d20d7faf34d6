"""The page about TensorFlow 1: its code runs, and the tests that it names exist."""

import ast
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests.layers.litert_files import exported, operators_of

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "from-tensorflow-1.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))

PRINTED = """\
['uint8', 'uint8']
True
scores True
True
('image_quantize', 'conv', 'digit')
['conv', 'digit', 'image_quantize']
image -> image_quantize (QuantizeInput)
conv -> conv (QConv2D)
norm -> conv (QConv2D)
relu -> conv (QConv2D)
flatten -> flatten (QFlatten)
digit -> digit (QDense), digit_softmax (QSoftmax)
folded ['QConv2D']
unfused ['QConv2D', 'UnfusedBatchNormalization']
split_activations: first -> first + first_relu
fuse_activations: first + first_relu -> first
fuse_activations: sum + last -> sum
['image', 'first', 'second', 'sum']
exact ['QConv2D', 'QLookup', 'QConv2D', 'QAdd', 'QLookup']
substitute ['QConv2D', 'QConv2D', 'QAdd']
{'kernel': 'uint8', 'bias': 'int32'}
[]
float steps left: 2
float steps left: 0
""".splitlines()


def functions_of(path):
    """Returns the names of the functions of a file without importing it."""
    return {x.name for x in ast.parse(path.read_text()).body if isinstance(x, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "function"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_tensorflow_1_page_names_tests_that_exist(path, function):
    assert function in functions_of(ROOT / path)


def test_tensorflow_1_page_has_a_test_per_statement():
    statements = [row for row in ROWS if not row.startswith("| the notes |")]
    assert len(statements) > 30
    without = [row for row in statements if "`tests/" not in row.split("|")[-2]]
    assert not without


def test_tensorflow_1_page_has_code_that_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "examples"}
    for block in BLOCKS:
        exec(block, names)
    lines = capsys.readouterr().out.splitlines()
    # Other lines are progress bars.
    assert [line for line in lines if line in PRINTED] == PRINTED


def residual(before, behind):
    """Makes the end of a residual block, with activations before or after the addition."""
    image = keras.Input((6, 6, 4), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation=before, name="first")(image)
    x = layers.Conv2D(4, 1, activation=before, name="second")(image)
    y = layers.add([x, y], name="sum")
    return keras.Model(image, layers.Activation(behind, name="last")(y))


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
def test_residual_block_has_equal_operators_for_both_places_of_relu(scheme, tmp_path):
    data = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")
    for before, behind in ((None, "relu"), ("relu", None)):
        qat = keras_qat.quantize_model(residual(before, behind), scheme)
        keras_qat.calibrate(qat, data, verbose=0)
        assert operators_of(exported(qat)) == ["CONV_2D", "CONV_2D", "ADD"]
        path = tmp_path / "model.tflite"
        keras_qat.export_litert(qat, path)
        assert keras_qat.verify(qat, path, data, kernels="default", verbose=0).exact
