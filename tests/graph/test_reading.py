"""read_model and build_model. The oracle is the output of the Keras model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_qat.errors import InvalidModelError
from keras_qat.graph import Edge, build_model, read_model
from keras_qat.graph.reading import is_model, tensors_by_edge


def sequential():
    return keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, name="d")], name="s")


def several():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    total = layers.Add(name="sum")([a, b])
    return keras.Model([a, b], [layers.Dense(2, name="d")(total), total])


def dictionaries():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    outputs = {"z": layers.Dense(2)(a), "y": (b, layers.Dense(3)(b))}
    return keras.Model({"b": b, "a": a}, outputs)  # not in alphabetical order


def keywords():
    x = keras.Input((4, 3), name="x")
    y = layers.Dropout(0.5, name="drop")(inputs=x, training=False)
    y = layers.MultiHeadAttention(1, 2, name="attention")(query=y, value=x, key=x)
    return keras.Model(x, y)


def operators():
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="d")(x)
    return keras.Model(x, keras.ops.relu((x + y) * 2.0 - y))


def shared_layer():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    dense = layers.Dense(4, name="d")
    return keras.Model([a, b], layers.Add(name="sum")([dense(a), dense(dense(b))]))


def several_results():
    x = keras.Input((4,), name="x")
    first, second = keras.ops.split(x, 2, axis=1)
    return keras.Model(x, [second, layers.Dense(2, name="d")(first)])


def block(name, inner=None):
    """Makes a nested model with a convolution, and with another model in it if one is given."""
    x = keras.Input((4, 4, 2), name=f"{name}_x")
    y = layers.Conv2D(2, 1, name=f"{name}_conv")(x)
    return keras.Model(x, y if inner is None else layers.Add()([inner(y), y]), name=name)


def nested():
    image = keras.Input((4, 4, 2), name="image")
    sequence = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.ReLU(name="relu"), block("inside")], name="sequence"
    )
    return keras.Model(image, sequence(block("first")(image)))


def nested_twice_and_shared():
    image = keras.Input((4, 4, 2), name="image")
    shared = block("outer", inner=block("middle", inner=block("inner")))
    return keras.Model(image, shared(shared(image)))


def nested_with_dictionaries():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model({"b": b, "a": a}, {"s": layers.Dense(3)(a), "t": layers.Dense(2)(b)})
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    outputs = inner({"a": p, "b": q})
    return keras.Model([p, q], [outputs["t"], outputs["s"]])


MODELS = (
    sequential,
    several,
    dictionaries,
    keywords,
    operators,
    shared_layer,
    several_results,
    nested,
    nested_twice_and_shared,
    nested_with_dictionaries,
)


def random_inputs(graph, count=3):
    rng = np.random.default_rng(0)

    def values(edge):
        return rng.normal(size=(count, *graph.shape(edge)[1:])).astype("float32")

    return keras.tree.map_structure(values, graph.input_structure)


@pytest.mark.parametrize("make", MODELS)
def test_build_model_of_a_read_graph_gives_equal_outputs(make):
    model = make()
    graph = read_model(model)
    built, inputs = build_model(graph), random_inputs(graph)
    expected, outputs = model(inputs), built(inputs)
    keras.tree.assert_same_structure(expected, outputs)
    for want, have in zip(keras.tree.flatten(expected), keras.tree.flatten(outputs), strict=True):
        assert (np.asarray(want) == np.asarray(have)).all()
    assert built.name == model.name
    assert {id(v) for v in built.variables} == {id(v) for v in model.variables}


def test_build_model_takes_a_class_and_a_name():
    class Special(keras.Model):
        pass

    built = build_model(read_model(several()), Special, name="other")
    assert type(built) is Special and built.name == "other"


def test_read_model_gives_nodes_shapes_dtypes_and_arguments():
    graph = read_model(several())
    assert graph.inputs == ("a", "b")
    assert graph.nodes["sum"].inputs == (Edge("a"), Edge("b"))
    assert graph.nodes["sum"].arguments == (([Edge("a"), Edge("b")],), {})
    assert (graph.nodes["d"].shapes, graph.nodes["d"].dtypes) == (((None, 2),), ("float32",))
    assert graph.outputs == [Edge("d"), Edge("sum")]
    assert [graph.nodes[name].is_input for name in ("a", "sum")] == [True, False]


def test_read_model_keeps_dictionaries_of_inputs_and_outputs():
    graph = read_model(dictionaries())
    assert graph.input_structure == {"a": Edge("a"), "b": Edge("b")}
    assert set(graph.outputs) == {"y", "z"} and graph.outputs["y"][0] == Edge("b")


def test_read_model_keeps_keyword_arguments():
    node = read_model(keywords()).nodes["attention"]
    assert node.inputs == (Edge("x"), Edge("drop"), Edge("x"))  # key, query, value
    args, kwargs = node.arguments
    assert args == () and kwargs["query"] == Edge("drop") and kwargs["value"] == Edge("x")


def test_read_model_makes_nodes_of_operators_and_their_constants():
    nodes = list(read_model(operators()).nodes.values())[2:]
    kinds = [type(node.head).__name__ for node in nodes]
    assert kinds == ["Add", "Multiply", "Subtract", "Relu"]
    assert 2.0 in keras.tree.flatten(nodes[1].arguments)


def test_read_model_makes_one_node_per_call_of_a_shared_layer():
    graph = read_model(shared_layer())
    calls = [node for node in graph.nodes.values() if node.head.name == "d"]
    assert sorted(node.name for node in calls) == ["d", "d_1", "d_2"]
    assert len({id(node.head) for node in calls}) == 1


@pytest.mark.parametrize("first", [True, False])
def test_read_model_gives_a_second_call_an_unused_name(first):
    x = keras.Input((4,), name="x")
    shared, other = layers.Dense(4, name="d"), layers.Dense(4, name="d_1")
    y = other(shared(shared(x))) if first else shared(shared(other(x)))
    graph = read_model(keras.Model(x, y))
    assert graph.nodes["d_1"].head is other
    assert sorted(graph.nodes) == ["d", "d_1", "d_2", "x"]


def test_read_model_numbers_the_results_of_an_operation():
    graph = read_model(several_results())
    split = next(n for n in graph.nodes.values() if type(n.head).__name__ == "Split")
    assert split.shapes == ((None, 2), (None, 2))
    assert graph.outputs == [Edge(split.name, 1), Edge("d")]


def test_read_model_keeps_nested_models_as_nodes():
    graph = read_model(nested_twice_and_shared())
    assert [name for name, node in graph.nodes.items() if is_model(node.head)] == [
        "outer",
        "outer_1",
    ]


@pytest.mark.parametrize("make", [shared_layer, several_results, nested])
def test_tensors_by_edge(make):
    model = make()
    tensors, graph = tensors_by_edge(model), read_model(model)
    assert {edge: tensor.shape for edge, tensor in tensors.items()} == {
        Edge(node.name, i): shape
        for node in graph.nodes.values()
        for i, shape in enumerate(node.shapes)
    }
    assert [tensors[edge] for edge in graph.output_edges] == model.outputs


def test_read_model_reads_only_its_part_of_a_larger_model():
    x = keras.Input((4,), name="x")
    h = layers.Dense(3, name="h")(x)
    layers.Dense(2, name="head")(h)
    assert list(read_model(keras.Model(x, h)).nodes) == ["x", "h"]


class Subclassed(keras.Model):
    def call(self, x):
        return x


REFUSED = {
    "not built": (
        lambda: keras.Sequential([layers.Dense(2)], name="bare"),
        "not built.* Layer: 'bare'.* To fix it: Add a `keras.Input`",
    ),
    "subclassed": (
        lambda: Subclassed(name="sub"),
        "subclassed.* Layer: 'sub'.* Received: a Subclassed.* To fix it: Build it",
    ),
    "not a model": (lambda: layers.Dense(2), "Not a Keras model.* Received: .*Dense"),
    "nothing": (lambda: None, "Not a Keras model.* Received: builtins.NoneType"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_read_model_refuses_models_without_a_graph(name):
    make, message = REFUSED[name]
    with pytest.raises(InvalidModelError, match=message):
        read_model(make())
