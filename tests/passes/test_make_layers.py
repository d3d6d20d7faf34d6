import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, read_model
from keras_qat.layers import QAdd, QConv2D, QDense, QReLU
from keras_qat.passes import PIPELINE, run_pipeline
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.schemes import annotate_schemes
from keras_qat.scheme import get_scheme
from tests.passes.customs import assert_file_exact


def ordered(x):
    return keras.ops.sort(x)


def made(model, scheme=None):
    graph, _ = run_pipeline(read_model(model), PIPELINE)
    return make_layers(annotate_schemes(graph, {}, scheme)).check(after="make_layers")


def test_make_layers_makes_one_layer_per_node():
    image = keras.Input((4, 4, 3), name="image")
    conv = layers.Conv2D(3, 1, name="conv")(image)
    y = layers.ReLU(name="relu")(layers.Add(name="add")(inputs=[conv, image]))
    graph = made(keras.Model(image, [y, layers.ReLU(name="alone")(image)]))
    kinds = {name: type(node.head) for name, node in graph.nodes.items() if not node.is_input}
    assert kinds == {"conv": QConv2D, "add": QAdd, "alone": QReLU}
    assert all(node.head.name == name for name, node in graph.nodes.items())
    assert graph.nodes["add"].arguments == (([Edge("conv"), Edge("image")],), {})
    assert graph.nodes["add"].head.activation == "relu"


def test_make_layers_shares_the_layer_of_several_calls():
    x = keras.Input((3,), name="x")
    dense = layers.Dense(3, activation="relu", name="d")
    graph = made(keras.Model(x, dense(dense(x))))
    assert graph.nodes["d"].head is graph.nodes["d_1"].head
    assert graph.nodes["d"].head.name == "d"


@pytest.mark.parametrize("scheme", [None, get_scheme("int8")])
def test_make_layers_gives_layers_the_scheme(scheme):
    graph = made(keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")]), scheme)
    assert graph.nodes["d"].head.scheme is scheme


def test_make_layers_makes_drop_in_layers_anew_with_the_scheme():
    source = QDense(2, name="d", activation="relu", batch_norm=True)
    graph = made(keras.Sequential([keras.Input((3,)), source]), get_scheme("int8"))
    layer = graph.nodes["d"].head
    assert type(layer) is QDense and layer is not source
    assert layer.scheme is get_scheme("int8") and layer.batch_normalization
    assert layer.get_config()["activation"] == "relu"


@pytest.mark.parametrize(
    ("build", "name", "received"),
    [
        (lambda x: keras.ops.sort(x), "sort", "Sort("),
        (lambda x: layers.Activation(ordered, name="own")(x), "own", "Sort("),
        (lambda x: layers.Dense(2, ordered, name="own")(x), "own_custom", "Sort("),
    ],
)
def test_make_layers_names_layers_that_no_rule_takes(build, name, received):
    image = keras.Input((4, 4, 3), name="image")
    with pytest.raises(UnsupportedLayerError) as caught:
        made(keras.Model(image, build(image)))
    # Keras numbers the names of operations over the whole process.
    assert re.fullmatch(rf"{name}(_\d+)?", caught.value.layer or "")
    text = str(caught.value)
    assert f"Received: {received}" in text
    assert "To fix it: " in text and "supported.md" in text


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (layers.Conv3DTranspose(2, 3), (4, 4, 4, 3), "volumes in float only"),
    ],
)
def test_make_layers_gives_the_reason_for_layers_that_litert_lacks(layer, shape, reason):
    with pytest.raises(UnsupportedLayerError, match=reason) as caught:
        made(keras.Sequential([keras.Input(shape), layer]))
    assert caught.value.layer == layer.name
    assert f"Received: {type(layer).__name__}(" in str(caught.value)
    assert "To fix it: Use" in str(caught.value)


def test_make_layers_makes_inputs_float32_except_ids():
    ids, pixels = keras.Input((3,), dtype="int32"), keras.Input((3,), dtype="uint8")
    model = keras.Model([ids, pixels], [layers.Embedding(4, 2)(ids), layers.Rescaling(2)(pixels)])
    graph = made(model)
    assert [graph.nodes[name].dtypes for name in graph.inputs] == [("int32",), ("float32",)]


def test_make_layers_of_a_uint8_model_become_an_exact_file(tmp_path):
    pixels = keras.Input((4, 4, 3), dtype="uint8")
    x = layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, x)
    data = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), "uint8")
    assert_file_exact(keras_qat.quantize_model(model, calibration_data=data), data, tmp_path)
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)
