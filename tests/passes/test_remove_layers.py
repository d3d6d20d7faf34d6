"""skip_layers: a clone without some layers equals a model defined without them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidModelError
from keras_qat.graph import read_model
from keras_qat.passes.remove_layers import remove_layers
from tests.models import network, randomized


def chain(skipped=(), name="chain"):
    """Makes a model without some of its layers."""
    made = [
        layers.Dense(4, name="first"),
        layers.LayerNormalization(name="norm"),
        layers.Activation("tanh", name="tanh"),
        layers.Dropout(0.5, name="drop"),
        layers.Dense(4, name="same"),
        layers.Dense(2, name="last"),
    ]
    kept = [layer for layer in made if layer.name not in skipped]
    return randomized(keras.Sequential([keras.Input((4,), name="x"), *kept], name=name))


def data(count=8):
    return np.random.default_rng(0).normal(size=(count, 4)).astype("float32")


def with_weights_of(model, source):
    for layer in model.layers:
        layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


@pytest.mark.parametrize(
    "names", [["norm"], ["norm", "tanh", "drop"], ["drop", "norm"], ["same", "tanh"], "norm"]
)
def test_remove_layers_by_name_and_in_sequence(names):
    model = chain()
    skipped = [names] if isinstance(names, str) else names
    expected = with_weights_of(chain(skipped), model)
    clone = keras_qat.clone_model(model, skip_layers=names)
    np.testing.assert_allclose(clone(data()), expected(data()), atol=1e-5)
    assert len(clone.trainable_weights) == len(expected.trainable_weights)


def test_remove_layers_in_nested_models_two_deep():
    inner = chain(name="inner")
    x = keras.Input((4,), name="outer_x")
    middle = keras.Model(x, layers.ReLU(name="relu")(inner(x)), name="middle")
    model = keras.Sequential([keras.Input((4,)), middle, layers.Dense(2, name="head")])
    clone = keras_qat.clone_model(model, skip_layers=["norm", "relu"])
    without = with_weights_of(chain(["norm"]), inner)
    expected = model.get_layer("head")(without(data()))
    np.testing.assert_allclose(clone(data()), expected, atol=1e-5)


def test_remove_layers_removes_each_call_of_a_shared_layer():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    y = layers.ReLU(name="relu")(shared(x))
    model = keras.Model(x, layers.Add(name="add")([shared(y), x]))
    clone = keras_qat.clone_model(model, skip_layers=["shared"])
    np.testing.assert_allclose(clone(data()), np.maximum(data(), 0) + data(), atol=1e-6)
    assert not clone.weights


def test_remove_layers_of_an_output_returns_its_input():
    model = chain()
    clone = keras_qat.clone_model(chain(), skip_layers=["tanh", "drop"])
    assert clone.output_shape == model.output_shape
    x = keras.Input((4,))
    ends = keras.Model(x, layers.Softmax(name="end")(layers.Dense(3, name="d")(x)))
    clone = keras_qat.clone_model(ends, skip_layers=["end"])
    np.testing.assert_allclose(clone(data()), ends.get_layer("d")(data()), atol=1e-6)


def test_remove_layers_removes_an_unsupported_layer():
    image = keras.Input((8, 8, 3), name="image")
    y = layers.Activation("sparsemax", name="odd")(network()(image))
    model = keras.Model(image, y)
    clone = keras_qat.clone_model(model, skip_layers=["odd"])
    images = np.ones((2, 8, 8, 3), "float32")
    np.testing.assert_allclose(clone(images), network()(images), atol=1e-5)


def test_remove_layers_gives_a_clone_that_can_be_quantized():
    clone = keras_qat.clone_model(chain(), skip_layers=["norm"])
    qat = keras_qat.quantize_model(clone)
    keras_qat.calibrate(qat, data(), verbose=0)
    qat.compile("sgd", "mse")
    qat.fit(data(), np.zeros((8, 2)), verbose=0)
    assert "norm" not in [layer.name for layer in qat.layers]


def test_remove_layers_is_logged():
    clone = keras_qat.clone_model(chain(), skip_layers=["norm"])
    assert str(clone.rewrite_log[0]) == "remove_layers: norm -> "


@pytest.mark.parametrize(("name", "shapes"), [("first", "4"), ("both", "4")])
def test_remove_layers_refuses_layers_that_change_the_shape(name, shapes):
    x = keras.Input((6,), name="x")
    first = layers.Dense(4, name="first")(x)
    model = keras.Model(x, layers.Add(name="both")([first, layers.Dense(4, name="second")(x)]))
    with pytest.raises(InvalidModelError, match=f"cannot be left out.*Layer: '{name}'") as caught:
        keras_qat.clone_model(model, skip_layers=[name])
    assert "one input, of the shape of the output" in str(caught.value) and shapes in str(caught)


@pytest.mark.parametrize(
    ("name", "close"), [("nrm", "'norm'"), ("frist", "'first'"), ("zzz", "'drop'")]
)
def test_remove_layers_refuses_unknown_names_with_close_ones(name, close):
    message = f"no layer of this name.*Layer: '{name}'.*{close}"
    with pytest.raises(InvalidModelError, match=message):
        keras_qat.clone_model(chain(), skip_layers=[name])


def test_remove_layers_without_names_changes_nothing():
    graph = read_model(chain())
    assert list(remove_layers(graph, []).nodes) == list(graph.nodes)
