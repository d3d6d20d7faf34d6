"""The order of operators in exported files, read by LiteRT's schema and run by its kernels."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from keras_qat.litert import Runner
from tests.models import randomized

BRANCHES = 3


def branching():
    """Makes branches that widen 4 channels to 32. Keras's order takes a layer of each in turn."""
    image = keras.Input((16, 16, 4), name="image")
    ends = []
    for i in range(BRANCHES):
        x = layers.Conv2D(32, 1, name=f"widen{i}")(image)
        ends.append(layers.Conv2D(4, 1, name=f"narrow{i}")(x))
    model = keras.Model(image, layers.Add(name="sum")(ends))
    return randomized(model)


def data(count):
    return np.random.default_rng(0).normal(size=(count, 16, 16, 4)).astype("float32")


def results(content):
    subgraph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    return [subgraph.tensors[each.outputs[0]].name.decode() for each in subgraph.operators]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    qat = keras_qat.quantize_model(branching())
    keras_qat.calibrate(qat, data(8), verbose=0)
    path = tmp_path_factory.mktemp("branching") / "model.tflite"
    keras_qat.export_litert(qat, path)
    return qat, path


def test_export_litert_computes_one_branch_after_the_other(exported):
    order = results(exported[1].read_bytes())
    for i in range(BRANCHES):
        assert order[order.index(f"widen{i}") + 1] == f"narrow{i}"


def test_export_litert_in_another_order_computes_the_same(exported):
    qat, path = exported
    assert keras_qat.verify(qat, path, data(4)).exact


def test_export_litert_keeps_the_names_of_inputs_and_outputs(exported):
    runner = Runner(exported[1], kernels="default")
    assert [each.name for each in runner.inputs] == ["image"]
    assert [each.name for each in runner.outputs] == ["sum"]
