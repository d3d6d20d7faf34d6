import keras
import numpy as np
from keras import layers

from keras_qat.graph import Edge, read_model
from keras_qat.passes.inline_models import inline_models
from tests.passes.graphs import applied, chains, maximum_difference


def dense_model(name, units=3, inner=None):
    x = keras.Input((3,), name=f"{name}_x")
    y = layers.Dense(units, name=f"{name}_dense")(x)
    return keras.Model(x, y if inner is None else inner(y), name=name)


def test_inline_models_returns_a_flat_graph_unchanged():
    graph = read_model(dense_model("m"))
    assert inline_models(graph) is graph


def test_inline_models_inlines_at_any_depth():
    x = keras.Input((3,), name="x")
    sequence = keras.Sequential(
        [keras.Input((3,)), layers.ReLU(name="relu"), dense_model("a")], name="sequence"
    )
    model = keras.Model(x, dense_model("b", inner=sequence)(x))
    graph = applied(inline_models, model)
    assert list(graph.nodes) == ["x", "b_dense", "relu", "a_dense"]
    assert graph.outputs == Edge("a_dense")
    assert maximum_difference(graph, model, np.eye(3, dtype="float32")) == 0


def test_inline_models_shares_the_layers_of_a_model_called_twice():
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    inner = dense_model("inner", inner=dense_model("innermost"))
    model = keras.Model([x, y], layers.Add(name="sum")([inner(x), inner(y)]))
    graph = applied(inline_models, model)
    assert chains(graph) == {
        "inner_dense": ["inner_dense"],
        "innermost_dense": ["innermost_dense"],
        "inner_dense_1": ["inner_dense"],
        "innermost_dense_1": ["innermost_dense"],
        "sum": ["sum"],
    }
    first, second = graph.nodes["inner_dense"], graph.nodes["inner_dense_1"]
    assert first.head is second.head
    eye = np.eye(3, dtype="float32")
    assert maximum_difference(graph, model, [eye, 2 * eye]) == 0


def test_inline_models_renames_a_layer_whose_name_is_taken():
    x = keras.Input((3,), name="x")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="dense")], name="inner")
    model = keras.Model(x, layers.Dense(2, name="dense")(inner(x)))
    graph = applied(inline_models, model)
    assert graph.nodes["dense"].head.units == 2
    assert graph.nodes["dense_1"].head.units == 3


def test_inline_models_binds_several_inputs_and_outputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    difference = layers.Subtract(name="minus")([a, b])
    inner = keras.Model({"b": b, "a": a}, {"d": difference, "same": a}, name="inner")
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    outputs = inner({"a": y, "b": x})
    model = keras.Model([x, y], [outputs["d"], layers.ReLU(name="relu")(outputs["same"])])
    graph = applied(inline_models, model)
    assert graph.nodes["minus"].inputs == (Edge("y"), Edge("x"))
    assert graph.nodes["relu"].inputs == (Edge("y"),)
    eye = np.eye(3, dtype="float32")
    assert maximum_difference(graph, model, [eye, 2 * eye]) == 0


def test_inline_models_inlines_a_model_that_is_the_output():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, {"y": dense_model("inner")(x)})
    assert applied(inline_models, model).outputs == {"y": Edge("inner_dense")}


def test_inline_models_does_not_copy_layers():
    x = keras.Input((3,), name="x")
    inner = dense_model("inner")
    graph = applied(inline_models, keras.Model(x, inner(x)))
    assert graph.nodes["inner_dense"].head is inner.get_layer("inner_dense")
