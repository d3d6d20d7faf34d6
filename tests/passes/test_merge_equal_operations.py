import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.graph import read_model
from keras_qat.passes.merge_equal_operations import merge_equal_operations
from tests.passes.graphs import applied, maximum_difference

DATA = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")


def branches(*activations):
    """Makes a tensor that several activations take. Each activation has its own convolution."""
    x = keras.Input((6, 6, 3), name="x")
    source = layers.Conv2D(4, 3, name="source")(x)
    ends = [layers.Conv2D(2, 1)(activation(source)) for activation in activations]
    return keras.Model(x, layers.Add()(ends))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Activation("relu"),
        lambda: layers.ReLU(),
        lambda: ops.relu,
        lambda: layers.Activation("tanh"),
        lambda: layers.LeakyReLU(0.25),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.MaxPooling2D(2),
    ],
)
def test_merge_equal_operations_keeps_the_first(make):
    model = branches(make(), make(), make())
    graph = applied(merge_equal_operations, model)
    kinds = [type(node.head).__name__ for node in graph.nodes.values()]
    assert len(kinds) == len(read_model(model).nodes) - 2
    assert maximum_difference(graph, model, DATA) == 0


def test_merge_equal_operations_leaves_unequal_arguments():
    model = branches(
        layers.ReLU(),
        layers.ReLU(6.0),
        layers.LeakyReLU(0.25),
        layers.LeakyReLU(0.5),
        layers.Activation("tanh"),
        layers.AveragePooling2D(3, strides=1, padding="same"),
        layers.MaxPooling2D(3, strides=1, padding="same"),
    )
    assert len(applied(merge_equal_operations, model).nodes) == len(read_model(model).nodes)


def test_merge_equal_operations_leaves_outputs():
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="y")(x)
    model = keras.Model(x, [layers.ReLU(name="a")(y), layers.ReLU(name="b")(y)])
    graph = applied(merge_equal_operations, model)
    assert graph.output_names == read_model(model).output_names
    assert {edge.node for edge in graph.output_edges} == {"a", "b"}


def test_merge_equal_operations_lets_a_relu_be_fused(tmp_path):
    model = branches(*(layers.ReLU() for _ in range(3)))
    quantized = keras_qat.quantize_model(model, calibration_data=DATA)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path)
    assert "RELU" not in {each.name for each in keras_qat.inspect_litert(path).operators}
    assert quantized.get_layer("source").activation == keras.activations.relu
    assert keras_qat.verify(quantized, path, DATA, verbose=0).exact
